"""`GET /load`: how busy the server is, for load balancers."""

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embed_server.endpoint import Endpoint
from embed_server.protocol.examples import examples
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["service"])


class Load(BaseModel):
    """Load of this process."""

    model_config = examples('{"server_load": 0}')

    server_load: int = Field(description="Requests that wait for vectors now.")


@router.get("/load", response_model=Load)
async def load(request: Request) -> Response:
    """Count the requests that wait for vectors."""
    return JSONResponse({"server_load": service_of(request).num_running})
