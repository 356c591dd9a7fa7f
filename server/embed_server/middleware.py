"""Around every request: its id, its place in the metrics, and the one way from error to answer."""

import logging
import random
import time
from collections.abc import Collection
from urllib.parse import quote

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embed_server.errors import CONTRACT, Dialect, error_response, find_failure
from embed_server.headers import find_header
from embed_server.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_REQUEST_ID_LENGTH = 128


class Observer:
    """Name, time and count every request, and turn what it raises into an answer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        dialect: Dialect = CONTRACT,
        log_level: int = logging.DEBUG,
        unlogged_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._dialect = dialect
        self._log_level = log_level
        self._unlogged_paths = unlogged_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given_id = _usable_id(find_header(scope, b"x-request-id"))
        # Without asking the system for randomness, which costs as much as parsing the request.
        request_id = given_id or f"{random.getrandbits(64):016x}"
        header = request_id.encode("latin-1")
        state = scope.setdefault("state", {})
        state.update(
            request_id=request_id,
            has_given_id=bool(given_id),
            dialect=self._dialect,  # endpoints of another dialect replace it
        )
        answered: int | None = None

        async def observed_send(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
                message["headers"].append((b"x-request-id", header))
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception as error:
            if find_failure(type(error), state["dialect"]).is_logged:
                logger.exception("request %s failed", request_id)
            if answered is not None:
                raise
            await error_response(error, state["dialect"])(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - started
            status = (
                answered or self._dialect.internal.status
            )  # what the HTTP layer sends when nothing else did
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.observe_request(route, status, seconds)
            if logger.isEnabledFor(self._log_level) and self._is_logged(scope):
                self._log(scope, status, seconds)

    def _is_logged(self, scope: Scope) -> bool:
        return get_route_path(scope) not in self._unlogged_paths

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        fields = {
            "request_id": scope["state"]["request_id"],
            "client": (scope.get("client") or ("unix",))[0],
            "method": scope["method"],
            "path": quote(scope["path"]),  # a line break in it would forge a line of the log
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
        }
        logger.log(
            self._log_level,
            "request %(request_id)s from %(client)s: %(method)s %(path)s -> %(status)d "
            "in %(milliseconds).1f ms",
            fields,
            extra={"fields": fields},
        )


def _usable_id(request_id: str) -> str:
    """Keep a caller's id if it can stand in a log line and in a header; else there is none."""
    usable = request_id.isascii() and request_id.isprintable()
    return request_id if usable and len(request_id) <= MAX_REQUEST_ID_LENGTH else ""
