"""From a request to a job: checked, tokenized, ready for the queue."""

import asyncio
import math
import sys
import threading
from collections.abc import Callable, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from embed_runtime.chunking import PieceGathering, SpanGathering, split
from embed_runtime.errors import ClosedError, InputError, OverloadedError
from embed_runtime.jobs import Job
from embed_runtime.manifest import Manifest
from embed_runtime.plan import Plan, make_plan
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import NO_ADAPTER, EmbedRequest, TokenizedInput

# Up to so many characters a request is tokenized on the event loop: that takes at most 0.25 ms
# there (0.24 us a character, MiniLM, Zen 4), and asking another thread 0.05 ms of both.
_INLINE_CHARS = 1000
# What an input takes beside its characters and its prompt's, in characters (about 10 us).
_CHARS_PER_INPUT = 40
# For estimates only. English has 4 to 5 characters a token.
_CHARS_PER_TOKEN = 4


class Preparer:
    """Makes the jobs of a bundle. Any number of threads and event loops may use it at once."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, *, num_threads: int) -> None:
        """Get ready.

        Args:
            manifest: What the model can be asked for.
            tokenizer: The bundle's.
            num_threads: Threads for what takes long, so that no event loop waits for it.
        """
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="embed-tokenizer")
        self._lock = threading.Lock()
        # Guarded by the lock: what these threads have, or have still to come to.
        self._num_waiting_tokens = 0

    def prepare(self, request: EmbedRequest, first_index: int = 0) -> Job:
        """Check a request and tokenize it, here and now.

        Args:
            request: It.
            first_index: Position of its first input in what the caller gave, for error messages.

        Raises:
            InputError: The request is wrong.
        """
        return self._prepare(request, make_plan(request, self._manifest), first_index)

    async def aprepare(
        self, request: EmbedRequest, first_index: int = 0, *, max_waiting_tokens: int | None = None
    ) -> Job:
        """Do the same; what takes long is done off the event loop.

        Args:
            request: It.
            first_index: As in `prepare`.
            max_waiting_tokens: Tokens, by an estimate, that may wait there to be made of texts. A
                request that is larger by itself is taken when nothing else waits.

        Raises:
            InputError: The request is wrong.
            OverloadedError: Too much waits already.
            ClosedError: It is long, and `close` was called.
        """
        plan = make_plan(request, self._manifest)
        per_input = _count_chars(plan.prompt) + _CHARS_PER_INPUT
        num_chars = sum(map(_count_chars, request.inputs)) + per_input * len(request.inputs)
        if num_chars <= _INLINE_CHARS:
            return self._prepare(request, plan, first_index)
        num_tokens = sum(map(make_estimate(request, plan, self._manifest), request.inputs))
        self._let_wait(num_tokens, max_waiting_tokens or sys.maxsize)
        try:
            return await asyncio.wrap_future(self._start(request, plan, first_index))
        finally:
            with self._lock:
                self._num_waiting_tokens -= num_tokens

    def close(self) -> None:
        """End the threads when they are done with what they have."""
        self._threads.shutdown()

    def _start(self, request: EmbedRequest, plan: Plan, first_index: int) -> Future[Job]:
        try:
            return self._threads.submit(self._prepare, request, plan, first_index)
        except RuntimeError as error:  # the only one it has: it was shut down
            raise ClosedError("the runtime is closed") from error

    def _let_wait(self, num_tokens: int, most: int) -> None:
        with self._lock:
            waiting = self._num_waiting_tokens
            if waiting and waiting + num_tokens > most:
                raise OverloadedError(
                    f"the queue is full: texts of about {waiting} tokens wait for the tokenizer,"
                    f" this request has about {num_tokens}, and max_queue_tokens={most};"
                    " try again in 1 s"
                )
            self._num_waiting_tokens += num_tokens

    def _prepare(self, request: EmbedRequest, plan: Plan, first_index: int) -> Job:
        try:
            if request.late_chunking:
                return _prepare_whole(request, plan, self._tokenizer)
            return _prepare_each(request, plan, self._tokenizer, first_index)
        except InputError as error:
            if error.index is None:
                raise
            raise error.renaming(request.name_input(error.index)) from None


def make_estimate(request: EmbedRequest, plan: Plan, manifest: Manifest) -> Callable[[object], int]:
    """Make what guesses the tokens of an input, at least 1, even where it is none at all.

    Args:
        request: What it is an input of.
        plan: How that is answered.
        manifest: The model's.
    """
    added = math.ceil(_count_chars(plan.prompt) / _CHARS_PER_TOKEN)
    added += manifest.tokenizer.num_special_tokens
    # What is read in pieces is read in full.
    most = sys.maxsize if request.chunk else manifest.max_tokens

    def estimate(one: object) -> int:
        num_chars = _count_chars(one)
        own = math.ceil(num_chars / _CHARS_PER_TOKEN) if isinstance(one, str) else num_chars
        return max(min(own + added, most), 1)

    return estimate


def _prepare_whole(request: EmbedRequest, plan: Plan, tokenizer: Tokenizer) -> Job:
    """Tokenize all inputs as one text."""
    whole, offsets = tokenizer.encode_together(request, prompt=plan.prompt)
    [whole] = _with_adapter([whole], plan)
    return Job([whole], plan, name_input=request.name_input, gathering=SpanGathering(plan, offsets))


def _prepare_each(request: EmbedRequest, plan: Plan, tokenizer: Tokenizer, first_index: int) -> Job:
    """Tokenize every input by itself, and take apart what is too long where that is asked for."""
    inputs = tokenizer.encode(request, prompt=plan.prompt, first_index=first_index)
    inputs = _with_adapter(inputs, plan)
    if not request.chunk or all(item.num_tokens <= tokenizer.max_tokens for item in inputs):
        return Job(inputs, plan, first_index=first_index, name_input=request.name_input)
    pieces, owners = split(inputs, tokenizer.max_tokens)
    num_tokens = np.array([piece.num_tokens for piece in pieces], np.int32)
    return Job(
        pieces,
        plan,
        first_index=first_index,
        name_input=request.name_input,
        gathering=PieceGathering(plan, num_tokens, owners),
        owners=owners,
    )


def _count_chars(one: object) -> int:
    """Size up an input of a request that was not checked yet."""
    return len(one) if isinstance(one, Sized) else 0


def _with_adapter(inputs: list[TokenizedInput], plan: Plan) -> list[TokenizedInput]:
    if plan.adapter == NO_ADAPTER:
        return inputs
    return [replace(item, adapter=plan.adapter) for item in inputs]
