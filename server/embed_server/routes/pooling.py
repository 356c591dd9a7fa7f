"""`POST /pooling`: vLLM's endpoint for every task of a model."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.answers import bytes_answer, json_answer
from embed_server.documentation import BYTES, FAILURES
from embed_server.endpoint import Endpoint
from embed_server.protocol.pooling import PoolingRequest, PoolingResponse, to_answer
from embed_server.protocol.request import naming_the_remedy
from embed_server.service import answer_id, service_of

router = APIRouter(route_class=Endpoint, tags=["embed"])


@router.post("/pooling", response_model=PoolingResponse, responses=FAILURES | BYTES)
async def pooling(request: Request, body: PoolingRequest) -> Response:
    """Compute vectors of inputs, vectors of their tokens, or weights of the vocabulary."""
    service = service_of(request)
    model = service.find_model(body.model)
    body.check()
    with naming_the_remedy(body.remedy):
        work = body.to_request(model.manifest, await service.render(request, model, body))
        result = await service.embed(request, model, work)
    name = answer_id(request, "pooling", body.request_id)
    if body.wants_bytes:
        return await bytes_answer(body, result, work.task, answer_id=name, model=model.name)
    return await json_answer(
        lambda: to_answer(body, result, work.task, answer_id=name, model=model.name),
        size=result.vectors.size,
    )
