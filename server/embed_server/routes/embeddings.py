"""`POST /v1/embeddings`: OpenAI's embeddings API."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.answers import bytes_answer, json_answer
from embed_server.documentation import BYTES, FAILURES
from embed_server.endpoint import Endpoint
from embed_server.protocol.openai import EmbeddingsRequest, EmbeddingsResponse, to_answer
from embed_server.protocol.request import naming_the_remedy
from embed_server.service import answer_id, service_of

router = APIRouter(route_class=Endpoint, tags=["embed"])


@router.post("/v1/embeddings", response_model=EmbeddingsResponse, responses=FAILURES | BYTES)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """Embed texts, token ids or conversations, as OpenAI's API does."""
    service = service_of(request)
    model = service.find_model(body.model)
    body.check()
    with naming_the_remedy(body.remedy):
        work = body.to_request(model.manifest, await service.render(request, model, body))
        result = await service.embed(request, model, service.allow_pieces(work))
    name = answer_id(request, "embd", body.request_id)
    if body.wants_bytes:
        return await bytes_answer(body, result, work.task, answer_id=name, model=model.name)
    return await json_answer(
        lambda: to_answer(body, result, work.task, answer_id=name, model=model.name),
        size=result.vectors.size,
    )
