"""`GET /info`: what is served, and the proof that its vectors are right."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.documentation import answer, choose
from embed_server.endpoint import Endpoint
from embed_server.protocol.about_model import describe
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


NAME = {
    "parameters": [
        {
            "name": "model",
            "in": "query",
            "description": "One of a model's names; of several models one must be named.",
            "schema": {"type": "string"},
            "example": "all-MiniLM-L6-v2",
        }
    ]
}
# The manifest and the certificate are described where bundles are, in engines/README.md.
EXAMPLE = {
    "model_names": ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"],
    "engine": {"backend": "openvino", "precision": "fp32", "device": "cpu", "certified": True},
    "skipped_engines": [],
    "manifest": {"schema_version": 1},
    "certificate": None,
    "model_id": "sentence-transformers/all-MiniLM-L6-v2",
    "model_dtype": "float32",
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_input_length": 256,
}


@router.get(
    "/info",
    response_model=dict[str, Any],
    responses=choose(400, 404) | answer(EXAMPLE),
    openapi_extra=NAME,
)
async def info(request: Request) -> Response:
    """Show a model's names and engine, and its bundle's manifest and certificate."""
    service = service_of(request)
    model = service.find_model(request.query_params.get("model"))
    content = msgspec.json.encode(describe(model, service.config))
    return Response(content, media_type="application/json")
