"""Stop working for a client that has left."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.requests import Request

from embed_server.errors import DisconnectedError

# Nobody is watched for so long: a task of its own is a tenth of what a short request costs.
_GRACE_SECONDS = 0.02


class CancelOnDisconnect:
    """Cancel the body of an `async with` when the client goes away, as `asyncio.timeout` does.

    The request's body must have been read: from then on the only message left is its end.

    Raises:
        DisconnectedError: On leaving, when that is why the body was cancelled.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._watcher: asyncio.Task[None] | None = None
        self._left = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled; await this inside one")
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._start)
        return self

    def _start(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._left and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise DisconnectedError("the client closed the connection") from error
