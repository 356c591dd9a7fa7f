"""`GET /metrics`: counters for Prometheus."""

from fastapi import APIRouter
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from embed_server.endpoint import Endpoint
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Write every metric in the text format that the scraper prefers."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    content = encode(service_of(request).metrics.registry)
    return Response(content, headers={"Content-Type": content_type})
