"""`Endpoint`: a documented route that reads its own body."""

from collections.abc import Callable, Coroutine
from typing import Any, get_args, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from embed_server.errors import (
    TEI,
    BodyTooLargeError,
    DisconnectedError,
    SchemaError,
)
from embed_server.headers import find_header
from embed_server.protocol.parsing import TeiBody, choose_model, parse_body
from embed_server.service import service_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Endpoint(APIRoute):
    """FastAPI documents it; its requests skip dependency injection and a second parse.

    The function takes the request and, where it needs one, the parsed `body`, whose annotation
    says what it is. It may be one of several models, `First | TeiBody`: the later ones say by
    which field of a body they are known. Failures are told in the dialect of the model.
    """

    def get_route_handler(self) -> Handler:
        """Return what runs for each request."""
        endpoint = self.endpoint
        body = get_type_hints(endpoint).get("body")
        if body is None:
            return endpoint
        models: tuple[type[BaseModel], ...] = get_args(body) or (body,)

        async def read_and_answer(request: Request) -> Response:
            speak_as(models[0], request)
            content = await read_body(request)
            model = models[0]
            if len(models) > 1:
                model = choose_model(models, content)
                speak_as(model, request)
            response: Response = await endpoint(request, parse_body(model, content))
            return response

        return read_and_answer


def speak_as(model: type[BaseModel], request: Request) -> None:
    """Tell the request's failures in the dialect of its body."""
    if issubclass(model, TeiBody):
        request.state.dialect = TEI


async def read_body(request: Request) -> bytes:
    """Read a JSON body, as far as it may be read.

    Raises:
        SchemaError: It is said to be something else.
        BodyTooLargeError: It is larger than the server takes.
        DisconnectedError: The client left before its end.
    """
    media_type = find_header(request.scope, b"content-type").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise SchemaError(f"Content-Type must be application/json, not {media_type[:100]!r}")
    max_body_bytes = service_of(request).config.max_body_bytes
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError("the client left before its request was complete")
        chunks.append(message.get("body", b""))
        num_bytes += len(chunks[-1])
        if num_bytes > max_body_bytes:
            raise BodyTooLargeError(f"the body is larger than {max_body_bytes} bytes; split it")
        if not message.get("more_body", False):
            return b"".join(chunks)
