"""From a raw body to a request model, or to the one error that names the field at fault."""

import reprlib
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from embed_server.errors import SchemaError

MAX_ERRORS_SHOWN = 10

ModelT = TypeVar("ModelT", bound=BaseModel)


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
