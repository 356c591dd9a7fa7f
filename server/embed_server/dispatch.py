"""The short way to an endpoint: one look into a table."""

from collections.abc import Iterable

from fastapi import APIRouter
from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from embed_server.endpoint import Endpoint


class Dispatch:
    """Answers requests for a known path and method itself; all others go on to FastAPI.

    FastAPI's own way there (a match of every route, two error handlers, an exit stack) costs a
    quarter of a short request, and an `Endpoint` needs none of it.
    """

    def __init__(self, app: ASGIApp, *, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._table = {
            (method, route.path): (route, route.get_route_handler())
            for router in routers
            for route in router.routes
            if isinstance(route, Endpoint) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            found = self._table.get((scope["method"], get_route_path(scope)))
            if found is not None:
                scope["route"], answer = found
                response = await answer(Request(scope, receive, send))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
