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
    """Show a model's names and engine, and its bundle's manifest and certificate."""
    model = service_of(request).find_model(request.query_params.get("model"))
    runtime = model.runtime
    content = {
        "model_names": model.names,
        "engine": runtime.engine_entry,
        "skipped_engines": runtime.skipped_engines,
        "manifest": model.manifest,
        "certificate": model.certificate,
    }
    return Response(msgspec.json.encode(content), media_type="application/json")
