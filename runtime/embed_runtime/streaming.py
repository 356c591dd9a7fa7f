"""Many texts, a window at a time: what is held does not grow with their number."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sized
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from embed_runtime.errors import InputError, OverloadedError
from embed_runtime.jobs import Job
from embed_runtime.manifest import Manifest
from embed_runtime.plan import make_plan
from embed_runtime.preparing import Preparer, make_estimate
from embed_runtime.progress import show_progress
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import EmbedRequest, EmbedResult, FloatArray, TextOrIds

# Batches in one window of many texts: enough for rows of like length to meet.
_WINDOW_BATCHES = 16
# Windows in the queue at once: while the oldest is computed, the next ones are tokenized.
_MAX_WINDOWS = 3


class Streamer:
    """Embeds any number of texts, a few windows of them being in the queue at once."""

    def __init__(
        self, manifest: Manifest, preparer: Preparer, scheduler: Scheduler, *, max_batch_tokens: int
    ) -> None:
        """Get ready.

        Args:
            manifest: What texts get around them, and are cut to.
            preparer: Makes jobs of windows.
            scheduler: Where to queue them.
            max_batch_tokens: Tokens in one batch.
        """
        self._manifest = manifest
        self._preparer = preparer
        self._scheduler = scheduler
        self._window_tokens = _WINDOW_BATCHES * max_batch_tokens

    def stream(
        self, texts: Iterable[TextOrIds], request: EmbedRequest, *, progress: bool
    ) -> Iterator[EmbedResult]:
        """Yield the results of windows in order; while the queue is full, this waits.

        Args:
            texts: Read only as far as needed.
            request: What to do with them; its own inputs are ignored.
            progress: Whether to show progress on stderr.

        Raises:
            InputError: The request, or a text, is wrong; or there is none.
        """
        with show_progress(_count(texts), show=progress) as advance:
            for result in self._results(texts, request):
                advance(len(result.num_tokens))
                yield result

    async def astream(
        self, texts: Iterable[TextOrIds], request: EmbedRequest, *, progress: bool
    ) -> AsyncGenerator[EmbedResult]:
        """Do the same without blocking an event loop.

        While the queue is full, windows that are in it are awaited; when there are none,
        OverloadedError goes to the caller.
        """
        with show_progress(_count(texts), show=progress) as advance:
            async with aclosing(self._aresults(texts, request)) as results:
                async for result in results:
                    advance(len(result.num_tokens))
                    yield result

    def _results(self, texts: Iterable[TextOrIds], request: EmbedRequest) -> Iterator[EmbedResult]:
        pending: deque[Job] = deque()
        try:
            for first_index, window in self._windows(texts, request):
                job = self._preparer.prepare(replace(request, inputs=window), first_index)
                self._scheduler.submit(job, wait=True)
                pending.append(job)
                if len(pending) == _MAX_WINDOWS:
                    yield pending[0].result()
                    pending.popleft()
            while pending:
                yield pending[0].result()
                pending.popleft()
        finally:
            for job in pending:
                job.cancel()

    async def _aresults(
        self, texts: Iterable[TextOrIds], request: EmbedRequest
    ) -> AsyncGenerator[EmbedResult]:
        pending: deque[Job] = deque()
        self._scheduler.check_open()
        try:
            for first_index, window in self._windows(texts, request):
                job = await self._preparer.aprepare(replace(request, inputs=window), first_index)
                while len(pending) == _MAX_WINDOWS or not self._submit(job, is_first=not pending):
                    yield await asyncio.wrap_future(pending[0])
                    pending.popleft()
                pending.append(job)
            while pending:
                yield await asyncio.wrap_future(pending[0])
                pending.popleft()
        finally:
            for job in pending:
                job.cancel()

    def _submit(self, job: Job, *, is_first: bool) -> bool:
        """Queue a window if there is space; without one before it, no space is an error."""
        try:
            self._scheduler.submit(job)
        except OverloadedError:
            if is_first:
                raise
            return False
        return True

    def _windows(
        self, texts: Iterable[TextOrIds], request: EmbedRequest
    ) -> Iterator[tuple[int, list[TextOrIds]]]:
        plan = make_plan(request, self._manifest)
        estimate_tokens = make_estimate(request, plan, self._manifest)
        # What is read as one text cannot be taken apart.
        window_tokens = sys.maxsize if request.late_chunking else self._window_tokens
        return _cut(texts, window_tokens=window_tokens, estimate_tokens=estimate_tokens)


def _cut(
    texts: Iterable[TextOrIds], *, window_tokens: int, estimate_tokens: Callable[[object], int]
) -> Iterator[tuple[int, list[TextOrIds]]]:
    """Cut a stream of texts into lists of about as many tokens.

    Args:
        texts: Read only as far as needed.
        window_tokens: Tokens in one list, roughly; a list has at least one text.
        estimate_tokens: Guesses those of one text.

    Yields:
        The position of a list's first text, and the list.

    Raises:
        InputError: `texts` is nothing to read from, or there are none.
    """
    try:
        stream = iter(texts)
    except TypeError as error:
        raise InputError(
            f"texts must be a text or many texts, not {type(texts).__name__}", param="inputs"
        ) from error
    window: list[TextOrIds] = []
    first_index = num_tokens = 0
    for one in stream:
        window.append(one)
        num_tokens += estimate_tokens(one)
        if num_tokens >= window_tokens:
            yield first_index, window
            first_index += len(window)
            window, num_tokens = [], 0
    if window:
        yield first_index, window
    elif not first_index:
        raise InputError("there are no texts: at least one is needed", param="inputs")


def _count(texts: Iterable[TextOrIds]) -> int | None:
    return len(texts) if isinstance(texts, Sized) else None


class VectorBuffer:
    """Gathers the vectors of windows into one array, in place where their number is known."""

    def __init__(self, texts: object) -> None:
        """Prepare for as many vectors as there are texts, if that can be told."""
        self._expected = len(texts) if isinstance(texts, Sized) else 0
        self._vectors = np.empty((0, 0), np.float32)
        self._num_vectors = 0

    def add(self, vectors: FloatArray) -> None:
        """Append [N, D] vectors; the first ones are kept as they are if they are all."""
        if not self._num_vectors and len(vectors) >= self._expected:
            self._vectors, self._num_vectors = vectors, len(vectors)
            return
        stop = self._num_vectors + len(vectors)
        if stop > len(self._vectors):
            self._grow(max(self._expected, stop + stop // 4), vectors.shape[1])
        self._vectors[self._num_vectors : stop] = vectors
        self._num_vectors = stop

    def _grow(self, num_vectors: int, size: int) -> None:
        if self._vectors.flags.owndata and self._num_vectors:
            # The system moves the pages of a large array: its values are never held twice.
            self._vectors.resize((num_vectors, size), refcheck=False)
            return
        grown = np.empty((num_vectors, size), np.float32)
        if self._num_vectors:
            grown[: self._num_vectors] = self.result()
        self._vectors = grown

    def result(self) -> FloatArray:
        """Give all that was added, [N, D]."""
        return self._vectors[: self._num_vectors]
