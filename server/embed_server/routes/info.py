"""`GET /info`: what is served, and the proof that its vectors are right."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.endpoint import Endpoint
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


@router.get("/info", response_model=dict[str, Any])
async def info(request: Request) -> Response:
    """Show names, engine, and the bundle's manifest and certificate."""
    service = service_of(request)
    runtime = service.runtime
    content = {
        "model_names": service.model_names,
        "engine": runtime.engine_entry,
        "skipped_engines": runtime.skipped_engines,
        "manifest": runtime.manifest,
        "certificate": service.certificate,
    }
    return Response(msgspec.json.encode(content), media_type="application/json")
