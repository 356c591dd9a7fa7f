"""From a raw body to a request model, or to the one error that names the field at fault."""

import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeAlias, TypeGuard, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from embed_server.errors import SchemaError

MAX_ERRORS_SHOWN = 10

ModelT = TypeVar("ModelT", bound=BaseModel)
ItemT = TypeVar("ItemT")

# A list in a body. Only its first wrong item is told of: of a million wrong ones pydantic would
# collect every error, which takes seconds and hundreds of megabytes, and nobody reads the second.
Many: TypeAlias = Annotated[list[ItemT], Field(fail_fast=True)]


class TeiBody(BaseModel):
    """A body of text-embeddings-inference's API.

    Attributes:
        known_by: Where its path is another API's too: the field that only it has, and the one
            that only the other has.
    """

    known_by: ClassVar[tuple[str, str] | None] = None


def choose_model(models: Sequence[type[BaseModel]], body: bytes) -> type[BaseModel]:
    """Find out which of the models a body is meant to be; the first one unless it tells another."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return models[0]
    for model in models[1:]:
        if issubclass(model, TeiBody) and model.known_by is not None and isinstance(document, dict):
            own, others = model.known_by
            if own in document and others not in document:
                return model
    return models[0]


def parse_body(model: type[ModelT], body: bytes) -> ModelT:
    """Parse and check a JSON body in one pass.

    Raises:
        SchemaError: It is not JSON, or not what the endpoint takes.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_context=False)[0]
        if detail["type"] == "json_invalid":
            offset = _json_error_offset(body)
            raise SchemaError(detail["msg"], param=f"body.{offset}") from None
        raise to_schema_error(error, "body") from None


def to_schema_error(error: ValidationError, path: str) -> SchemaError:
    """Say in one text what is wrong with a part of a body.

    Args:
        error: What pydantic found.
        path: Where in the body it looked, like "body.messages".
    """
    details = error.errors(include_url=False, include_context=False)
    lines = [_describe(detail, path) for detail in details[:MAX_ERRORS_SHOWN]]
    heading = f"{len(details)} validation error{'s' if len(details) > 1 else ''}:"
    return SchemaError("\n  ".join([heading, *lines]), param=_path(details[0], path))


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Tell whether a value is a list; of what is still open."""
    return isinstance(value, list)


def _json_error_offset(body: bytes) -> int:
    # The first parser tells line and column, the contract wants the offset. The second accepts a
    # few documents that the first refuses, for their depth for one; those have no offset to tell.
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return error.pos
    return 0


def _describe(detail: ErrorDetails, path: str) -> str:
    return f"{_path(detail, path)}: {detail['msg']} (got {reprlib.repr(detail['input'])})"


def _path(detail: ErrorDetails, path: str) -> str:
    return ".".join([path, *map(str, detail["loc"])])
