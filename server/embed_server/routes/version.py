"""`GET /version`: the version of this software."""

from importlib.metadata import version as installed_version

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embed_server.endpoint import Endpoint
from embed_server.protocol.examples import examples

_VERSION = installed_version("embed-runtime")

router = APIRouter(route_class=Endpoint, tags=["service"])


class Version(BaseModel):
    """Of embed-runtime."""

    model_config = examples('{"version": "0.1.0"}')

    version: str


@router.get("/version", response_model=Version)
async def version(_request: Request) -> Response:
    """Tell which version of embed-runtime serves."""
    return JSONResponse({"version": _VERSION})
