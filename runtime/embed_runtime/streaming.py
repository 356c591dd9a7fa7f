"""Many texts, a window at a time: what is held does not grow with their number."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sized

import numpy as np

from embed_runtime.errors import InputError
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import EmbedResult, FloatArray, TextOrIds

# Windows in the queue at once: while the oldest is computed, the next ones are tokenized.
_MAX_WINDOWS = 3

# For sizing windows only. English has 4 to 5 characters a token.
_CHARS_PER_TOKEN = 4


def windows(
    texts: Iterable[TextOrIds], *, window_tokens: int, max_tokens: int
) -> Iterator[list[TextOrIds]]:
    """Cut a stream of texts into lists of about as many tokens.

    Args:
        texts: Read only as far as needed.
        window_tokens: Tokens in one list, roughly; a list has at least one text.
        max_tokens: What an input is cut to.

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
    num_windows = num_tokens = 0
    for one in stream:
        window.append(one)
        num_tokens += min(_estimate_tokens(one), max_tokens)
        if num_tokens >= window_tokens:
            yield window
            window, num_tokens = [], 0
            num_windows += 1
    if window:
        yield window
    elif not num_windows:
        raise InputError("there are no texts: at least one is needed", param="inputs")


def _estimate_tokens(one: object) -> int:
    """Guess from the length; what is no input at all is the tokenizer's to refuse."""
    if isinstance(one, str):
        return len(one) // _CHARS_PER_TOKEN + 1
    return len(one) if isinstance(one, Sized) else 1


def stream(
    texts: Iterator[list[TextOrIds]], start: Callable[[list[TextOrIds], int], Job]
) -> Iterator[EmbedResult]:
    """Yield the results of windows in order, a few windows being in the queue at once.

    Args:
        texts: The windows.
        start: Tokenizes a window, given the position of its first text, and queues it.
    """
    pending: deque[Job] = deque()
    first_index = 0
    try:
        for window in texts:
            pending.append(start(window, first_index))
            first_index += len(window)
            if len(pending) == _MAX_WINDOWS:
                yield pending[0].result()
                pending.popleft()
        while pending:
            yield pending[0].result()
            pending.popleft()
    finally:
        for job in pending:
            job.cancel()


async def astream(
    texts: Iterator[list[TextOrIds]],
    prepare: Callable[[list[TextOrIds], int], Awaitable[Job]],
    scheduler: Scheduler,
) -> AsyncGenerator[EmbedResult]:
    """Do the same without blocking an event loop.

    Args:
        texts: The windows.
        prepare: Tokenizes a window, given the position of its first text.
        scheduler: Where to queue it. While it is full, windows that were queued are awaited;
            when none are left, OverloadedError goes to the caller.
    """
    pending: deque[Job] = deque()
    first_index = 0
    try:
        for window in texts:
            job = await prepare(window, first_index)
            first_index += len(window)
            while pending and (len(pending) == _MAX_WINDOWS or not scheduler.has_space(job)):
                yield await asyncio.wrap_future(pending[0])
                pending.popleft()
            scheduler.submit(job)
            pending.append(job)
        while pending:
            yield await asyncio.wrap_future(pending[0])
            pending.popleft()
    finally:
        for job in pending:
            job.cancel()


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
