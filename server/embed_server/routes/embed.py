"""`POST /v2/embed`: Cohere's embed API."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.answers import json_answer
from embed_server.documentation import FAILURES
from embed_server.endpoint import Endpoint
from embed_server.protocol.cohere import EmbedBody, EmbedResponse, to_answer
from embed_server.service import answer_id, service_of

router = APIRouter(route_class=Endpoint, tags=["embed"])


@router.post("/v2/embed", response_model=EmbedResponse, responses=FAILURES)
async def embed(request: Request, body: EmbedBody) -> Response:
    """Embed texts, as Cohere's API does."""
    service = service_of(request)
    model = service.find_model(body.model)
    work = service.allow_pieces(body.to_request(model.manifest))
    result = await service.embed(request, model, work)
    name = answer_id(request, "embd")
    return await json_answer(
        lambda: to_answer(body, result, answer_id=name),
        size=result.vectors.size * len(body.types),
    )
