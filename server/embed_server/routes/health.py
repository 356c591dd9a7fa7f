"""`GET /health`: whether a request can be answered now."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.endpoint import Endpoint
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


@router.head("/health", include_in_schema=False)
@router.get("/health", responses={503: {"description": "The engine fails"}})
async def health(request: Request) -> Response:
    """Answer 200 when the engine works, 503 when it fails; the body is empty."""
    healthy = await service_of(request).is_healthy()
    return Response(status_code=200 if healthy else 503)
