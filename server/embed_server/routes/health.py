"""`GET /health` and `/ping`: whether a request can be answered now."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.documentation import Responses
from embed_server.endpoint import Endpoint
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])

UNHEALTHY: Responses = {503: {"description": "An engine fails"}}


@router.post("/ping", response_class=Response, responses=UNHEALTHY, operation_id="ping_post")
@router.get("/ping", response_class=Response, responses=UNHEALTHY, operation_id="ping_get")
@router.head("/health", include_in_schema=False)
@router.get("/health", response_class=Response, responses=UNHEALTHY)
async def health(request: Request) -> Response:
    """Answer 200 when every engine works, 503 when one fails; the body is empty."""
    healthy = await service_of(request).is_healthy()
    return Response(status_code=200 if healthy else 503)
