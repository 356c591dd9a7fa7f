"""`Runtime`: a bundle, opened; texts in, vectors out."""

import concurrent.futures
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from embed_runtime.config import RuntimeConfig
from embed_runtime.manifest import EngineEntry, Manifest
from embed_runtime.scheduler import SchedulerStats
from embed_runtime.types import (
    EmbedRequest,
    EmbedResult,
    FloatArray,
    PoolingOutput,
    Task,
    TextOrIds,
    Truncate,
)


class Runtime:
    """A loaded bundle; safe to use from many threads and event loops at once."""

    manifest: Manifest
    engine_entry: EngineEntry
    skipped_engines: tuple[str, ...]

    def __init__(
        self, path: str | Path, *, config: RuntimeConfig | None = None, engine: str | None = None
    ) -> None:
        raise NotImplementedError

    def embed(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate = "END",
        progress: bool = False,
    ) -> FloatArray:
        """Embed texts."""
        raise NotImplementedError

    async def aembed(
        self,
        texts: str | Iterable[TextOrIds],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate = "END",
        progress: bool = False,
    ) -> FloatArray:
        """Embed texts."""
        raise NotImplementedError

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
    ) -> list[PoolingOutput]:
        """Encode texts."""
        raise NotImplementedError

    def score(
        self,
        queries: str | Iterable[TextOrIds],
        documents: str | Iterable[TextOrIds],
        *,
        truncate: Truncate = "END",
    ) -> FloatArray:
        """Score pairs."""
        raise NotImplementedError

    def submit(self, request: EmbedRequest) -> concurrent.futures.Future[EmbedResult]:
        """Queue one request; InputError, OverloadedError and ClosedError are raised at once."""
        raise NotImplementedError

    async def asubmit(self, request: EmbedRequest) -> EmbedResult:
        """Queue one request and await it."""
        raise NotImplementedError

    def stats(self) -> SchedulerStats:
        """Snapshot the queue."""
        raise NotImplementedError

    def close(self, *, drain: bool = True) -> None:
        """Stop; with `drain` after finishing what was accepted."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
