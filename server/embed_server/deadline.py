"""A limit on the time one request may take."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embed_server.errors import DeadlineError


class Deadline:
    """Drop the work of a request whose answer has not begun in time, a slow upload included."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            DeadlineError: It took too long.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        timer = asyncio.timeout(self._seconds)

        async def send_in_time(message: Message) -> None:
            timer.reschedule(None)  # how fast the caller reads is another matter
            await send(message)

        try:
            async with timer:
                await self._app(scope, receive, send_in_time)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise DeadlineError(
                f"no answer within max_request_seconds={self._seconds:g}; send less at once, or try"
                " again later"
            ) from error
