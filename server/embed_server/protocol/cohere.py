"""`/v2/embed`: Cohere's request and answer, for text."""

import builtins
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, Field, model_validator

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.scoring import SIDES
from embed_runtime.types import EmbedRequest, EmbedResult, FloatArray, Truncate
from embed_runtime.vectors import to_binary, to_int8, to_ubinary, to_uint8
from embed_server.protocol.base64 import to_base64
from embed_server.protocol.examples import examples
from embed_server.protocol.parsing import Many
from embed_server.protocol.request import PRIORITY
from embed_server.protocol.shared import check_limit

EmbeddingType: TypeAlias = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]

# Cohere's clients send one of its own names with every request. Where the model does not define
# the name itself, the prompts that other models have for the same purpose stand in.
ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "search_query": SIDES["query"],
        "search_document": SIDES["document"],
        "classification": ("Classification",),
        "clustering": ("Clustering", "separation"),
        "image": (),
    }
)
SEARCH = ("search_query", "search_document")
NO_PROMPT = ""


class ImageUrl(BaseModel):
    """Where an image is."""

    url: str


class ContentPart(BaseModel):
    """A piece of a mixed input."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _has_payload(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type!r} needs the field {self.type!r}")
        return self


class MixedInput(BaseModel):
    """One input of several parts."""

    content: Many[ContentPart] = Field(min_length=1)


class EmbedBody(BaseModel):
    """Unknown fields are ignored."""

    model_config = examples(
        '{"texts": ["a text"], "input_type": "search_query", "embedding_types": ["ubinary"]}',
        '{"inputs": [{"content": [{"type": "text", "text": "a text"}]}], "truncate": "START"}',
    )

    model: str | None = Field(None, description="A served model name; empty for the only model.")
    input_type: str | None = Field(
        None,
        description="Name of the model's prompt to put in front of every text. Cohere's own names "
        "work on every model: search_query and search_document use the model's query and document "
        "prompts, if it has them.",
    )
    texts: Many[str] | None = Field(None, description="What to embed.")
    images: Many[str] | None = Field(None, description="Refused by models that read text only.")
    inputs: Many[MixedInput] | None = Field(
        None, description="Inputs of several parts, instead of texts; text parts are joined by \\n."
    )
    embedding_types: Many[EmbeddingType] = Field(
        ["float"],
        description="Forms to answer in. `base64` is little-endian float32; `int8` has each "
        "vector on its own scale, so that its largest value is 127 (compare by cosine), `uint8` "
        "the same plus 128; `binary` and `ubinary` pack the signs of 8 values into a number.",
    )
    output_dimension: int | None = Field(None, description="Keep this many leading values.")
    truncate: Truncate = Field("END", description="The end to cut from; NONE refuses instead.")
    max_tokens: int | None = Field(
        None, ge=-1, description="Cut inputs to this many tokens; -1 for the model's maximum."
    )
    priority: int = PRIORITY

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in ("texts", "images", "inputs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "exactly one of texts, images and inputs must be given, "
                f"not {' and '.join(given) or 'none'}"
            )
        if not getattr(self, given[0]):
            raise ValueError(f"{given[0]} must not be empty")
        return self

    @property
    def types(self) -> tuple[EmbeddingType, ...]:
        """The forms to answer in; none named means floats."""
        return tuple(dict.fromkeys(self.embedding_types)) or ("float",)

    def to_request(self, manifest: Manifest) -> EmbedRequest:
        """Say the same in the runtime's words.

        Raises:
            InputError: A field asks for what the model cannot do.
        """
        limit = None if self.max_tokens == -1 else self.max_tokens
        if self.truncate == "NONE" and limit is not None:
            limit = min(limit, manifest.max_tokens)  # the model's own limit refuses the rest
        check_limit("max_tokens", limit, manifest, param="truncate_prompt_tokens")
        dimensions = self.output_dimension or manifest.dimensions.native
        if dimensions % 8 and not {"binary", "ubinary"}.isdisjoint(self.types):
            raise InputError(
                f"binary and ubinary pack 8 values into a byte, so dimensions must be a "
                f"multiple of 8, not {dimensions}"
            )
        prompt_name = find_prompt_name(self.input_type, manifest.prompts)
        return EmbedRequest(
            inputs=self._texts(),
            prompt_name=prompt_name or None,
            prompt="" if prompt_name == NO_PROMPT else None,
            dimensions=self.output_dimension,
            truncate=self.truncate,
            max_tokens=limit,
        )

    def _texts(self) -> list[str]:
        if self.texts is not None:
            return self.texts
        parts = [mixed.content for mixed in self.inputs or ()]
        if self.images is not None or any(part.image_url for row in parts for part in row):
            raise InputError("this model reads text only; images need a multimodal model")
        return ["\n".join(part.text or "" for part in row) for row in parts]


def find_prompt_name(input_type: str | None, prompts: Mapping[str, str]) -> str | None:
    """Look up which of the model's prompts an `input_type` puts in front of every input.

    Returns:
        Its name, or `NO_PROMPT`; None where nothing was asked for.

    Raises:
        InputError: The model does not know this `input_type`.
    """
    if input_type is None:
        return None
    if input_type in prompts:
        return input_type
    if input_type in ALIASES and not prompts:
        return NO_PROMPT
    for alias in ALIASES.get(input_type, ()):
        if alias in prompts:
            return alias
    searches = [name for side in SEARCH for name in (side, *ALIASES[side])]
    if input_type in SEARCH and not prompts.keys().isdisjoint(searches):
        return NO_PROMPT  # a model with a prompt for one side of a search wants none on the other
    supported = sorted({*prompts, *(() if prompts else ALIASES)})
    raise InputError(f"input_type={input_type!r} is unknown; this model has {supported}")


class Embeddings(BaseModel):
    """One list for each requested form; the others are absent."""

    float: list[list[builtins.float]] | None = None
    base64: list[str] | None = None
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None


class ApiVersion(BaseModel):
    """Of Cohere's API."""

    version: Literal["2"] = "2"


class BilledUnits(BaseModel):
    """Tokens the model read, special tokens included."""

    input_tokens: int
    image_tokens: int = 0


class Meta(BaseModel):
    """Accounting."""

    api_version: ApiVersion
    billed_units: BilledUnits


class EmbedResponse(BaseModel):
    """Vectors in the order of the inputs."""

    model_config = examples(
        """{"id": "embd-91c2d4e6f8a0b173", "response_type": "embeddings_by_type",
        "embeddings": {"ubinary": [[189]]}, "texts": ["a text"],
        "meta": {"api_version": {"version": "2"},
            "billed_units": {"input_tokens": 4, "image_tokens": 0}}}""",
    )

    id: str
    embeddings: Embeddings
    texts: list[str] | None = None
    meta: Meta
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"


ENCODERS: Mapping[EmbeddingType, Callable[[FloatArray], object]] = MappingProxyType(
    {
        "float": lambda vectors: vectors,
        "base64": to_base64,
        "int8": to_int8,
        "uint8": to_uint8,
        "binary": to_binary,
        "ubinary": to_ubinary,
    }
)


def to_answer(body: EmbedBody, result: EmbedResult, *, answer_id: str) -> dict[str, object]:
    """Give an `EmbedResponse`; values stay in numpy."""
    answer: dict[str, object] = {
        "id": answer_id,
        "embeddings": {name: ENCODERS[name](result.vectors) for name in body.types},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"input_tokens": int(result.num_tokens.sum()), "image_tokens": 0},
        },
        "response_type": "embeddings_by_type",
    }
    if body.texts is not None:
        answer["texts"] = body.texts
    return answer
