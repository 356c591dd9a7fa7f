"""`GET /v1/models`: what is served, as OpenAI's API lists models."""

from fastapi import APIRouter
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from embed_server.documentation import choose
from embed_server.endpoint import Endpoint
from embed_server.protocol.models import ModelCard, ModelList, describe_model, list_models
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


class NameConvertor(StringConvertor):
    """Any name at all, slashes and line breaks included: an unknown one gets our own 404."""

    regex = r"[\s\S]+"


register_url_convertor("model_name", NameConvertor())


@router.get("/v1/models", response_model=ModelList)
async def models(request: Request) -> Response:
    """List every model under each of its names."""
    listing = list_models(service_of(request).models)
    return Response(listing.model_dump_json(), media_type="application/json")


NAME = {
    "parameters": [
        {
            "name": "name",
            "in": "path",
            "required": True,
            "description": "One of a model's names; it may hold slashes.",
            "schema": {"type": "string"},
            "example": "all-MiniLM-L6-v2",
        }
    ]
}


@router.get(
    "/v1/models/{name:model_name}",
    response_model=ModelCard,
    responses=choose(404),
    openapi_extra=NAME,
)
async def model(request: Request) -> Response:
    """Describe the model of this name."""
    name = request.path_params["name"]
    card = describe_model(service_of(request).find_model(name), name)
    return Response(card.model_dump_json(), media_type="application/json")
