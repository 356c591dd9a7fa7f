"""`Runtime`: a bundle, opened; texts in, vectors out."""

import asyncio
import atexit
import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

from embed_runtime.batching import Limits
from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import RequestTooLargeError
from embed_runtime.jobs import Job
from embed_runtime.loading import load_bundle
from embed_runtime.outputs import to_vectors, to_weights
from embed_runtime.preparing import Preparer
from embed_runtime.scheduler import Scheduler
from embed_runtime.scoring import check_pairs, for_side
from embed_runtime.similarity import compare
from embed_runtime.stats import SchedulerStats
from embed_runtime.streaming import Streamer, VectorBuffer
from embed_runtime.types import (
    EmbedRequest,
    EmbedResult,
    FloatArray,
    PoolingOutput,
    Task,
    TextOrIds,
    Truncate,
)

# Batches in the queue when it is full, if the configuration does not say otherwise.
_QUEUE_BATCHES = 256


class Runtime:
    """A loaded bundle. Any number of threads and event loops may use it at once.

    Attributes:
        config: The limits and threads it was opened with.
        folder: Where the bundle lies.
        manifest: What the bundle says about itself; `max_tokens` is `config.max_model_len`, if set.
        engine_entry: The engine that runs.
        tokenizer: The bundle's tokenizer.
        max_batch_tokens: Tokens in one batch.
        max_queue_tokens: Tokens that may wait.
        skipped_engines: One line for each engine the bundle prefers to this one: why it was
            skipped.
    """

    def __init__(
        self, path: str | Path, *, config: RuntimeConfig | None = None, engine: str | None = None
    ) -> None:
        """Open a bundle; its files are checked before any of them is used.

        Args:
            path: The folder of a bundle, for the fastest of its engines that runs here; or one
                engine file in it, for that engine.
            config: Limits and threads.
            engine: The engine to use, by name, like "onnxruntime".

        Raises:
            BundleError: There is no bundle, it is damaged, or the engine cannot run here.
            InputError: `max_model_len` is more than the model takes, or `max_cache_bytes` less than
                one result does.
        """
        self.config = config = config or RuntimeConfig()
        bundle = load_bundle(Path(path), config=config, engine=engine)
        self.folder = bundle.folder
        self.manifest = bundle.manifest
        self.engine_entry = bundle.entry
        self.tokenizer = bundle.tokenizer
        self.skipped_engines = bundle.skipped
        self.max_batch_tokens = bundle.max_batch_tokens
        self.max_queue_tokens = config.max_queue_tokens or _QUEUE_BATCHES * bundle.max_batch_tokens
        self._scheduler = Scheduler(
            bundle.engine,
            limits=Limits.for_model(
                max_tokens=bundle.max_batch_tokens,
                hidden_size=bundle.manifest.hidden_size,
                dimensions=bundle.manifest.dimensions.native,
            ),
            max_queue_tokens=self.max_queue_tokens,
            max_cache_bytes=config.max_cache_bytes,
        )
        self._preparer = Preparer(
            self.manifest, self.tokenizer, num_threads=config.num_tokenizer_threads
        )
        self._streamer = Streamer(
            self.manifest,
            self._preparer,
            self._scheduler,
            max_batch_tokens=self.max_batch_tokens,
        )
        # A runtime that nobody closes ends when it is collected, or with the process.
        atexit.register(self._scheduler.close, drain=False)
        self._finalizer = weakref.finalize(self, _close_elsewhere, self._scheduler)
        self._finalizer.atexit = False

    def embed(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate = "END",
        chunk: bool = False,
        late_chunking: bool = False,
        progress: bool = False,
    ) -> FloatArray:
        """Embed one text or many; of many, only a few windows are held at a time.

        Where the queue is full, this waits.

        Args:
            texts: A text; or any iterable of texts, or of lists of token ids, which are used
                verbatim.
            prompt_name: Name of a prompt of the bundle to put in front of every text, or of a
                task, for its adapter and its prompt; None for the bundle's default.
            prompt: A prompt instead of a name; an empty one for none at all.
            dimensions: Leading values to keep of each vector, for models trained for it.
            normalize: Whether vectors get unit length; None does what the model does.
            truncate: Which end of an overlong text is cut, END or START; NONE refuses it.
            chunk: Read an overlong text in pieces instead of cutting it; its vector is their
                mean, weighted by length.
            late_chunking: Read all texts as one, of which they are the chunks in their order;
                each vector is the mean of a chunk's tokens as they are in the whole.
            progress: Whether to show progress on stderr.

        Returns:
            [D] float32 for one text, [N, D] in the order of the texts for many.

        Raises:
            InputError: An argument or a text is wrong; nothing more is computed then.
            EngineError: The engine failed.
            ClosedError: The runtime is closed.
        """
        request = EmbedRequest(
            inputs=(),
            prompt_name=prompt_name,
            prompt=prompt,
            dimensions=dimensions,
            normalize=normalize,
            truncate=truncate,
            chunk=chunk,
            late_chunking=late_chunking,
        )
        vectors = self._gather(
            [texts] if isinstance(texts, str) else texts, request, progress=progress
        )
        return vectors[0] if isinstance(texts, str) else vectors

    async def aembed(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate = "END",
        chunk: bool = False,
        late_chunking: bool = False,
        progress: bool = False,
    ) -> FloatArray:
        """Embed one text or many without blocking the event loop; see `embed`.

        Cancelling it drops what has not run yet.

        Raises:
            OverloadedError: The queue is full of other callers' work.
        """
        request = EmbedRequest(
            inputs=(),
            prompt_name=prompt_name,
            prompt=prompt,
            dimensions=dimensions,
            normalize=normalize,
            truncate=truncate,
            chunk=chunk,
            late_chunking=late_chunking,
        )
        many = [texts] if isinstance(texts, str) else texts
        gathered = VectorBuffer(many)
        async with aclosing(self._streamer.astream(many, request, progress=progress)) as results:
            async for result in results:
                gathered.add(result.vectors)
        vectors = gathered.result()
        return vectors[0] if isinstance(texts, str) else vectors

    @overload
    def encode(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        task: Literal["embed", "token_embed"] = "embed",
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate = "END",
        progress: bool = False,
    ) -> list[PoolingOutput[FloatArray]]: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        task: Literal["sparse"],
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate: Truncate = "END",
        progress: bool = False,
    ) -> list[PoolingOutput[dict[int, float]]]: ...

    def encode(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        task: Task = "embed",
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate = "END",
        progress: bool = False,
    ) -> list[PoolingOutput[FloatArray]] | list[PoolingOutput[dict[int, float]]]:
        """Encode one text or many, one output for each; see `embed` for the arguments.

        Args:
            texts: As in `embed`.
            task: One of the bundle's, `manifest.tasks`. `embed`: one vector a text, [D].
                `token_embed`: one a token, [T, D]; where the model has a head for them (ColBERT)
                what that gives, else last hidden states, special tokens included and not
                normalized. `sparse`: {token id: weight}, positive weights only, ids ascending.
            prompt_name: As in `embed`.
            prompt: As in `embed`.
            dimensions: As in `embed`; not for `token_embed` and `sparse`.
            normalize: As in `embed`; not for `sparse`.
            truncate: As in `embed`.
            progress: As in `embed`.
        """
        request = EmbedRequest(
            inputs=(),
            task=task,
            prompt_name=prompt_name,
            prompt=prompt,
            dimensions=dimensions,
            normalize=normalize,
            truncate=truncate,
        )
        many = [texts] if isinstance(texts, str) else texts
        results = self._streamer.stream(many, request, progress=progress)
        if task == "sparse":
            return [output for result in results for output in to_weights(result)]
        return [output for result in results for output in to_vectors(result, task)]

    def score(
        self,
        queries: str | Iterable[TextOrIds],
        documents: str | Iterable[TextOrIds],
        *,
        query_prompt_name: str | None = None,
        document_prompt_name: str | None = None,
        dimensions: int | None = None,
        truncate: Truncate = "END",
        progress: bool = False,
    ) -> FloatArray:
        """Score how well documents fit queries, by the similarity the model was trained for.

        Args:
            queries: One text for all documents, or one for each.
            documents: One text or many.
            query_prompt_name: Prompt for the queries; None for the model's own, `query` or the
                like, as Sentence-Transformers' `encode_query` has it.
            document_prompt_name: Prompt for the documents; None for the model's own, `document`,
                `passage` or the like.
            dimensions: As in `embed`.
            truncate: As in `embed`.
            progress: As in `embed`.

        Returns:
            [N] float32, one score for each document; higher is better.

        Raises:
            InputError: There are neither one query nor as many as documents; or as in `embed`.
        """
        left = [queries] if isinstance(queries, str) else list(queries)
        right = [documents] if isinstance(documents, str) else list(documents)
        check_pairs(len(left), len(right))
        request = EmbedRequest(inputs=(), dimensions=dimensions, truncate=truncate)
        own = [
            for_side(replace(request, prompt_name=query_prompt_name), "query", self.manifest),
            for_side(replace(request, prompt_name=document_prompt_name), "document", self.manifest),
        ]
        sides = [
            self._gather(texts, work, progress=progress)
            for texts, work in zip((left, right), own, strict=True)
        ]
        return compare(sides[0], sides[1], self.manifest.similarity)

    def submit(self, request: EmbedRequest) -> Future[EmbedResult]:
        """Queue one request; its texts are tokenized here and now.

        Returns:
            A future; cancelling it drops what has not run yet. It may raise EngineError, or
            ClosedError when the runtime was closed without draining.

        Raises:
            InputError: The request is wrong.
            RequestTooLargeError: It has more than `max_request_tokens`.
            OverloadedError: The queue is full.
            EngineError: There is no memory for what the result cache has of it.
            ClosedError: The runtime is closed.
        """
        job = self._preparer.prepare(request)
        self._check_num_tokens(job)
        self._scheduler.submit(job)
        return job

    async def asubmit(self, request: EmbedRequest) -> EmbedResult:
        """Queue one request and await its result; long texts are tokenized off the event loop.

        Cancelling the task drops what has not run yet.

        Raises:
            InputError: The request is wrong.
            RequestTooLargeError: It has more than `max_request_tokens`.
            OverloadedError: The queue is full, or texts of as many tokens wait for the tokenizer.
            EngineError: The engine failed.
            ClosedError: The runtime is closed.
        """
        self._scheduler.check_open()
        job = await self._preparer.aprepare(request, max_waiting_tokens=self.max_queue_tokens)
        self._check_num_tokens(job)
        # Requests that reach the event loop in the same turn get this far first, so that they meet
        # in one batch instead of the first one going alone.
        await asyncio.sleep(0)
        self._scheduler.submit(job)
        return await asyncio.wrap_future(job)

    def stats(self) -> SchedulerStats:
        """Take a snapshot of the queue and of all that was counted since the start."""
        return self._scheduler.stats()

    def close(self, *, drain: bool = True) -> None:
        """Take no more work and free the engine; safe to call twice.

        Args:
            drain: Whether to finish what was accepted; else it gets a ClosedError.
        """
        self._scheduler.close(drain=drain)
        self._preparer.close()
        self._finalizer.detach()
        atexit.unregister(self._scheduler.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(drain=error is None)

    def _check_num_tokens(self, job: Job) -> None:
        """Refuse one request of too many tokens; texts that are streamed have no such limit."""
        most = self.config.max_request_tokens
        if most is not None and job.num_tokens > most:
            raise RequestTooLargeError(
                f"the request has {job.num_tokens} tokens, and max_request_tokens={most}; split it"
            )

    def _gather(
        self, texts: Iterable[TextOrIds], request: EmbedRequest, *, progress: bool
    ) -> FloatArray:
        """Embed all windows: [N, D]."""
        gathered = VectorBuffer(texts)
        for result in self._streamer.stream(texts, request, progress=progress):
            gathered.add(result.vectors)
        return gathered.result()


def _close_elsewhere(scheduler: Scheduler) -> None:
    """Finish what was accepted, in a thread: garbage is collected anywhere, even under a lock."""

    def close() -> None:
        scheduler.close()
        atexit.unregister(scheduler.close)

    threading.Thread(target=close, name="embed-closing", daemon=True).start()
