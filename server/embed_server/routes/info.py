"""`GET /info`: what is served, and the proof that its vectors are right."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.endpoint import Endpoint
from embed_server.protocol.about_model import describe
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


@router.get("/info", response_model=dict[str, Any])
async def info(request: Request) -> Response:
    """Show a model's names and engine, and its bundle's manifest and certificate."""
    service = service_of(request)
    model = service.find_model(request.query_params.get("model"))
    content = msgspec.json.encode(describe(model, service.config))
    return Response(content, media_type="application/json")
