"""What several APIs share: token accounting, length limits and the shape of errors."""

import time
from collections.abc import Sequence

from pydantic import BaseModel

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.types import EmbedResult


class Usage(BaseModel):
    """Tokens the model read, special tokens included; all five keys are always there."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None
    completion_tokens_details: None = None


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`) and for programs (the rest)."""

    message: str
    type: str
    param: str | None = None
    code: int


class ErrorBody(BaseModel):
    """The body of every failure, except for a missing key (401) and an unknown path (404)."""

    error: ErrorDetail


def count_usage(*results: EmbedResult) -> dict[str, int | None]:
    """Fill in `Usage` as plain values."""
    num_tokens = sum(int(result.num_tokens.sum()) for result in results)
    return {
        "prompt_tokens": num_tokens,
        "total_tokens": num_tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def count_tokens(*results: EmbedResult) -> dict[str, int | None]:
    """Fill in the two keys of `Usage` that short answers have."""
    usage = count_usage(*results)
    return {name: usage[name] for name in ("prompt_tokens", "total_tokens")}


def to_list_answer(
    items: Sequence[object], *results: EmbedResult, answer_id: str, model: str
) -> dict[str, object]:
    """Give an answer of OpenAI's kind: a list, and what it cost."""
    return {
        "id": answer_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": items,
        "usage": count_usage(*results),
    }


def check_limit(
    name: str, limit: int | None, manifest: Manifest, *, param: str | None = None
) -> None:
    """Refuse to cut inputs to nothing, or to more than the model takes.

    Raises:
        InputError: The limit is 0 or above the model's.
    """
    if limit == 0:
        raise InputError(f"prompt cannot be empty, which {name}=0 makes it")
    if limit is not None and limit > manifest.max_tokens:
        raise InputError(
            f"{name}={limit} cannot be greater than max_model_len={manifest.max_tokens}; "
            "-1 stands for the largest length",
            param=param,
        )
