"""`GET /metrics`: counters for Prometheus."""

from fastapi import APIRouter
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from embed_server.documentation import Responses
from embed_server.endpoint import Endpoint
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", response_class=Response, responses=TEXT)
async def metrics(request: Request) -> Response:
    """Write every metric in the text format that the scraper prefers."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    content = encode(service_of(request).metrics.registry)
    return Response(content, headers={"Content-Type": content_type})
