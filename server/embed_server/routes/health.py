"""`GET /health` and `/ping`: whether a request can be answered now."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.endpoint import Endpoint
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])

UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"description": "An engine fails"}}


@router.post("/ping", responses=UNHEALTHY, operation_id="ping_post")
@router.get("/ping", responses=UNHEALTHY, operation_id="ping_get")
@router.head("/health", include_in_schema=False)
@router.get("/health", responses=UNHEALTHY)
async def health(request: Request) -> Response:
    """Answer 200 when every engine works, 503 when one fails; the body is empty."""
    healthy = await service_of(request).is_healthy()
    return Response(status_code=200 if healthy else 503)
