"""`GET /v1/models`: what is served, as OpenAI's API lists models."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_server.endpoint import Endpoint
from embed_server.protocol.models import ModelList, list_models
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


@router.get("/v1/models", response_model=ModelList)
async def models(request: Request) -> Response:
    """List the model under each of its names."""
    service = service_of(request)
    listing = list_models(service.model_names, service.runtime.manifest)
    return Response(listing.model_dump_json(), media_type="application/json")
