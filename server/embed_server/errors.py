"""How a failure looks on the wire: one table from error class to status and type.

The runtime's errors have their rows here too; a class without one inherits its parent's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from starlette.responses import Response

from embed_runtime.errors import (
    BundleError,
    ClosedError,
    EmbedError,
    EngineError,
    InputError,
    OverloadedError,
)


class SchemaError(EmbedError):
    """The body is not the JSON that the endpoint takes.

    Attributes:
        param: Dotted path of the first field at fault, like "body.input.0", or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModelError(EmbedError):
    """The request names a model that is not served here."""


class BodyTooLargeError(EmbedError):
    """The body is larger than `max_body_bytes`."""


class DisconnectedError(EmbedError):
    """The client left before its answer was ready; nobody reads what is sent now."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller sees of an error class: the HTTP status and the contract's word for it."""

    status: int
    type: str


INTERNAL = Failure(500, "InternalServerError")

FAILURES: Mapping[type[EmbedError], Failure] = {
    SchemaError: Failure(400, "Bad Request"),
    InputError: Failure(400, "BadRequestError"),
    UnknownModelError: Failure(404, "NotFoundError"),
    BodyTooLargeError: Failure(413, "RequestTooLargeError"),
    OverloadedError: Failure(429, "TooManyRequestsError"),
    DisconnectedError: Failure(499, "ClientClosedRequestError"),
    EngineError: INTERNAL,
    ClosedError: Failure(503, "ServiceUnavailableError"),
    BundleError: Failure(503, "ServiceUnavailableError"),
}

# The contract names these fields and leaves `param` null for all others.
PARAMS = frozenset({"input_tokens", "model", "normalize", "prompt_name", "truncate_prompt_tokens"})

# A cause that is ours goes into the log, under the request's id; the caller gets one of these.
HIDDEN = {
    500: "internal error; the server's log has the cause under the id in the X-Request-Id header",
    503: "the model is not available: the server is stopping or its bundle is damaged",
}


def find_failure(error: type[Exception]) -> Failure:
    """Find the table's row for an error class or its nearest ancestor; 500 for all others."""
    return next((FAILURES[cls] for cls in error.__mro__ if cls in FAILURES), INTERNAL)


def error_response(error: Exception) -> Response:
    """Answer with an error, in the shape of the contract."""
    failure = find_failure(type(error))
    headers: dict[str, str] = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    body = {
        "message": HIDDEN.get(failure.status) or str(error),
        "type": failure.type,
        "param": _find_param(error),
        "code": failure.status,
    }
    return Response(
        orjson.dumps({"error": body}),
        status_code=failure.status,
        headers=headers,
        media_type="application/json",
    )


def _find_param(error: Exception) -> str | None:
    if isinstance(error, InputError):
        return error.param if error.param in PARAMS else None
    return error.param if isinstance(error, SchemaError) else None
