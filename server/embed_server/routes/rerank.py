"""`POST /rerank`, `/v1/rerank`, `/v2/rerank`: documents in the order in which they fit a query."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_runtime.types import Truncate
from embed_server.answers import json_answer
from embed_server.documentation import FAILURES, TEI_FAILURES, either
from embed_server.endpoint import Endpoint
from embed_server.protocol.score import RerankRequest, RerankResponse, to_ranking, to_texts
from embed_server.protocol.tei_rank import Rank, TeiRerankBody, to_ranks
from embed_server.scoring import score_pairs
from embed_server.service import answer_id, service_of

router = APIRouter(route_class=Endpoint, tags=["rank"])


@router.post(
    "/rerank",
    response_model=RerankResponse | list[Rank],
    responses=either(FAILURES, TEI_FAILURES),
)
async def rerank_either(request: Request, body: RerankRequest | TeiRerankBody) -> Response:
    """Rank documents in vLLM's way, or `texts` in text-embeddings-inference's."""
    if isinstance(body, RerankRequest):
        return await rerank(request, body)
    return await rank_texts(request, body)


async def rank_texts(request: Request, body: TeiRerankBody) -> Response:
    """Rank texts as text-embeddings-inference does."""
    model = service_of(request).find_model(body.model)
    fields = body.to_rerank_request()
    scores, _ = await score_pairs(
        request, model, fields, [body.query], body.texts, truncate=body.cut
    )
    return await json_answer(lambda: to_ranks(body, scores), size=len(scores))


@router.post("/v1/rerank", response_model=RerankResponse, responses=FAILURES)
async def rerank(request: Request, body: RerankRequest) -> Response:
    """Rank documents by their vectors' similarity with the query's; overlong ones are an error."""
    return await _rank(request, body, truncate="NONE")


@router.post("/v2/rerank", response_model=RerankResponse, responses=FAILURES)
async def rerank_cutting(request: Request, body: RerankRequest) -> Response:
    """Rank documents in the same way; the ends of overlong ones are cut, as Cohere does."""
    return await _rank(request, body, truncate="END")


async def _rank(request: Request, body: RerankRequest, *, truncate: Truncate) -> Response:
    model = service_of(request).find_model(body.model)
    documents = to_texts(body.documents)
    scores, results = await score_pairs(
        request, model, body, to_texts([body.query]), documents, truncate=truncate
    )
    name = answer_id(request, "score", body.request_id)
    return await json_answer(
        lambda: to_ranking(body, documents, scores, results, answer_id=name, model=model.name),
        size=len(scores),
    )
