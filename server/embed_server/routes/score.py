"""`POST /score`, `/v1/score`: how well documents fit queries."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.answers import json_answer
from embed_server.documentation import FAILURES
from embed_server.endpoint import Endpoint
from embed_server.protocol.score import ScoreRequest, ScoreResponse, to_score_answer
from embed_server.scoring import score_pairs
from embed_server.service import answer_id, service_of

router = APIRouter(route_class=Endpoint, tags=["rank"])


@router.post("/v1/score", response_model=ScoreResponse, responses=FAILURES)
@router.post("/score", response_model=ScoreResponse, responses=FAILURES)
async def score(request: Request, body: ScoreRequest) -> Response:
    """Compare one query with each document, or pair by pair, by their vectors' similarity."""
    model = service_of(request).find_model(body.model)
    scores, results = await score_pairs(request, model, body, *body.sides())
    name = answer_id(request, "score", body.request_id)
    return await json_answer(
        lambda: to_score_answer(scores, results, answer_id=name, model=model.name),
        size=len(scores),
    )
