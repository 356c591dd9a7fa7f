"""How a failure looks on the wire: for each dialect a table from error class to status and type.

The runtime's errors have their rows here too; a class without one inherits its parent's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import orjson
from starlette.responses import Response

from embed_runtime.errors import (
    BundleError,
    ClosedError,
    EmbedError,
    EngineError,
    InputError,
    InputTooLongError,
    NotFiniteError,
    OverloadedError,
    RequestTooLargeError,
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


class DeadlineError(EmbedError):
    """The answer was not ready after `max_request_seconds`."""


class DisconnectedError(EmbedError):
    """The client left before its answer was ready; nobody reads what is sent now."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller sees of an error class.

    Attributes:
        status: Of HTTP.
        type: The dialect's word for it.
        message: Stands for the error's own, where that could tell of the server's insides.
        is_logged: Whether the cause is ours and goes into the log, under the request's id.
    """

    status: int
    type: str
    message: str | None = None
    is_logged: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an API tells of failures.

    Attributes:
        failures: Its table.
        internal: Its row for everything that is not in the table.
        to_body: Writes the answer: failure, message, name of the field at fault.
    """

    failures: Mapping[type[EmbedError], Failure]
    internal: Failure
    to_body: Callable[[Failure, str, str | None], object]


def _to_contract_body(failure: Failure, message: str, param: str | None) -> object:
    return {
        "error": {
            "message": message,
            "type": failure.type,
            "param": param,
            "code": failure.status,
        }
    }


def _to_tei_body(failure: Failure, message: str, _param: str | None) -> object:
    return {"error": message, "error_type": failure.type}


_CAUSE = "the server's log has the cause under the id in the X-Request-Id header"
_STOPPING = "the model is not available: the server is stopping or its bundle is damaged"

_INTERNAL = Failure(500, "InternalServerError", f"internal error; {_CAUSE}", is_logged=True)
_UNAVAILABLE = Failure(503, "ServiceUnavailableError", _STOPPING, is_logged=True)

CONTRACT = Dialect(
    failures={
        SchemaError: Failure(400, "Bad Request"),
        InputError: Failure(400, "BadRequestError"),
        UnknownModelError: Failure(404, "NotFoundError"),
        BodyTooLargeError: Failure(413, "RequestTooLargeError"),
        RequestTooLargeError: Failure(413, "RequestTooLargeError"),
        OverloadedError: Failure(429, "TooManyRequestsError"),
        DisconnectedError: Failure(499, "ClientClosedRequestError"),
        EngineError: _INTERNAL,
        NotFiniteError: replace(_INTERNAL, message=None),
        ClosedError: _UNAVAILABLE,
        BundleError: _UNAVAILABLE,
        DeadlineError: Failure(504, "GatewayTimeoutError"),
    },
    internal=_INTERNAL,
    to_body=_to_contract_body,
)

# vLLM turns a full queue away like a sick server.
STRICT = replace(
    CONTRACT, failures={**CONTRACT.failures, OverloadedError: Failure(503, "Service Unavailable")}
)

_BACKEND = Failure(424, "Backend", f"inference failed; {_CAUSE}", is_logged=True)
_UNHEALTHY = Failure(503, "Unhealthy", _STOPPING, is_logged=True)

# text-embeddings-inference; it has no words for the rows with 404, 499 and 504.
TEI = Dialect(
    failures={
        SchemaError: Failure(422, "Validation"),
        InputError: Failure(422, "Validation"),
        InputTooLongError: Failure(413, "Validation"),
        UnknownModelError: Failure(404, "Validation"),
        BodyTooLargeError: Failure(413, "Validation"),
        RequestTooLargeError: Failure(413, "Validation"),
        OverloadedError: Failure(429, "Overloaded"),
        DisconnectedError: Failure(499, "Validation"),
        EngineError: _BACKEND,
        NotFiniteError: replace(_BACKEND, message=None),
        ClosedError: _UNHEALTHY,
        BundleError: _UNHEALTHY,
        DeadlineError: Failure(504, "Overloaded"),
    },
    internal=replace(_BACKEND, status=500),
    to_body=_to_tei_body,
)

# The contract names these fields and leaves `param` null for all others.
PARAMS = frozenset(
    {
        "cache_salt",
        "input_tokens",
        "late_chunking_params",
        "media_io_kwargs",
        "mm_processor_kwargs",
        "model",
        "normalize",
        "prompt_name",
        "task",
        "truncate_prompt_tokens",
    }
)


def find_failure(error: type[Exception], dialect: Dialect = CONTRACT) -> Failure:
    """Find the row of an error class or of its nearest ancestor."""
    failures = dialect.failures
    return next((failures[cls] for cls in error.__mro__ if cls in failures), dialect.internal)


def error_response(error: Exception, dialect: Dialect = CONTRACT) -> Response:
    """Answer with an error, in the words of a dialect."""
    failure = find_failure(type(error), dialect)
    headers: dict[str, str] = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    message = failure.message or str(error)
    # Half of a pair of UTF-16, as a chat template may write it, cannot be sent.
    message = message.encode(errors="backslashreplace").decode()
    body = dialect.to_body(failure, message, _find_param(error))
    return Response(
        orjson.dumps(body),
        status_code=failure.status,
        headers=headers,
        media_type="application/json",
    )


def _find_param(error: Exception) -> str | None:
    if isinstance(error, InputError):
        return error.param if error.param in PARAMS else None
    if isinstance(error, UnknownModelError):
        return "model"
    return error.param if isinstance(error, SchemaError) else None
