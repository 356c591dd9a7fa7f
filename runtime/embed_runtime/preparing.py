"""From a request to a job: checked, tokenized, ready for the queue."""

import asyncio
from collections.abc import Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from embed_runtime.chunking import PieceGathering, SpanGathering, split
from embed_runtime.errors import ClosedError, InputError
from embed_runtime.jobs import Job
from embed_runtime.manifest import Manifest
from embed_runtime.plan import Plan, make_plan
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import NO_ADAPTER, EmbedRequest, TokenizedInput

# Up to so many characters a request is tokenized on the event loop: that takes at most 0.25 ms
# there (0.24 us a character, MiniLM, Zen 4), and asking another thread 0.05 ms of both.
_INLINE_CHARS = 1000
# What an input takes beside its characters and its prompt's, in characters.
_CHARS_PER_INPUT = 40


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

    def prepare(self, request: EmbedRequest, first_index: int = 0) -> Job:
        """Check a request and tokenize it, here and now.

        Args:
            request: It.
            first_index: Position of its first input in what the caller gave, for error messages.

        Raises:
            InputError: The request is wrong.
        """
        return self._prepare(request, make_plan(request, self._manifest), first_index)

    async def aprepare(self, request: EmbedRequest, first_index: int = 0) -> Job:
        """Do the same; what takes long is done off the event loop.

        Raises:
            InputError: The request is wrong.
            ClosedError: It is long, and `close` was called.
        """
        plan = make_plan(request, self._manifest)
        per_input = _count_chars(plan.prompt) + _CHARS_PER_INPUT
        num_chars = sum(map(_count_chars, request.inputs)) + per_input * len(request.inputs)
        if num_chars <= _INLINE_CHARS:
            return self._prepare(request, plan, first_index)
        try:
            preparing = self._threads.submit(self._prepare, request, plan, first_index)
        except RuntimeError as error:  # the only one it has: it was shut down
            raise ClosedError("the runtime is closed") from error
        return await asyncio.wrap_future(preparing)

    def close(self) -> None:
        """End the threads when they are done with what they have."""
        self._threads.shutdown()

    def _prepare(self, request: EmbedRequest, plan: Plan, first_index: int) -> Job:
        try:
            if request.late_chunking:
                return _prepare_whole(request, plan, self._tokenizer)
            return _prepare_each(request, plan, self._tokenizer, first_index)
        except InputError as error:
            if error.index is None:
                raise
            raise error.renaming(request.name_input(error.index)) from None


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
