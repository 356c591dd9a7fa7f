"""`POST /v1/embeddings`: OpenAI's embeddings API."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_runtime.errors import InputTooLongError
from embed_server.endpoint import ERRORS, Endpoint
from embed_server.protocol.openai import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    describe_bytes,
    encode_bytes,
    encode_json,
)
from embed_server.service import answer_id, service_of

router = APIRouter(route_class=Endpoint, tags=["embed"])


@router.post("/v1/embeddings", response_model=EmbeddingsResponse, responses=ERRORS)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """Embed texts or token ids, as OpenAI's API does."""
    service = service_of(request)
    model = service.find_model(body.model)
    try:
        result = await service.embed(request, model, body.to_request(model.manifest))
    except InputTooLongError as error:
        raise InputTooLongError(
            f"{error}; in this API: truncate_prompt_tokens=-1",
            param=error.param,
            index=error.index,
        ) from error
    name = answer_id(request, "embd", body.request_id)
    if body.encoding_format not in ("bytes", "bytes_only"):
        content = encode_json(body, result, answer_id=name, model=model.name)
        return Response(content, media_type="application/json")
    rows = encode_bytes(body, result)
    response = Response(rows.tobytes(), media_type="application/octet-stream")
    if body.encoding_format == "bytes":
        response.headers["metadata"] = describe_bytes(
            body, result, rows, answer_id=name, model=model.name
        )
    return response
