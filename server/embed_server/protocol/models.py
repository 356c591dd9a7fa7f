"""`/v1/models`: OpenAI's list of models."""

import secrets
import time
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from embed_server.protocol.examples import examples
from embed_server.served_model import ServedModel

_CARD = """{"id": "all-MiniLM-L6-v2", "object": "model", "created": 1767225600,
    "owned_by": "embed-runtime", "root": "sentence-transformers/all-MiniLM-L6-v2",
    "parent": null, "max_model_len": 256, "dimensions": 384, "permission": []}"""


class ModelPermission(BaseModel):
    """Kept for clients that read it; everything here is fixed but the id and the time."""

    id: str
    object: Literal["model_permission"] = "model_permission"
    created: int
    allow_create_engine: bool = False
    allow_sampling: bool = True
    allow_logprobs: bool = True
    allow_search_indices: bool = False
    allow_view: bool = True
    allow_fine_tuning: bool = False
    organization: str = "*"
    group: None = None
    is_blocking: bool = False


class ModelCard(BaseModel):
    """One served name."""

    model_config = examples(_CARD)

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "embed-runtime"
    root: str
    parent: None = None
    max_model_len: int
    dimensions: int = Field(description="Extension: values in one vector.")
    permission: list[ModelPermission]


class ModelList(BaseModel):
    """Every served name."""

    model_config = examples(f'{{"object": "list", "data": [{_CARD}]}}')

    object: Literal["list"] = "list"
    data: list[ModelCard]


def list_models(models: Sequence[ServedModel]) -> ModelList:
    """Describe every model under each of its names."""
    return ModelList(data=[describe_model(model, name) for model in models for name in model.names])


def describe_model(model: ServedModel, name: str) -> ModelCard:
    """Describe a model under one of its names."""
    manifest, created = model.manifest, int(time.time())
    return ModelCard(
        id=name,
        created=created,
        root=manifest.model.id,
        max_model_len=manifest.max_tokens,
        dimensions=manifest.dimensions.native,
        permission=[ModelPermission(id=f"modelperm-{secrets.token_hex(8)}", created=created)],
    )
