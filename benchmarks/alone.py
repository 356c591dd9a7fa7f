"""A bundle without a server: all texts in one call, one text in a call, the engine by itself."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.worker import Worker
from embed_runtime import Runtime, RuntimeConfig
from embed_runtime.batching import Row, collate
from embed_runtime.loading import load_bundle
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import Batch, EmbedRequest

T = TypeVar("T")

_NUM_SINGLE_TEXTS = 150
# Many times what their vectors take.
_CACHE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneSpec:
    """A bundle to run without a server.

    Attributes:
        bundle: Its folder.
        backend: Which of its engines.
        texts: What it embeds in a pass.
        num_threads: Threads it may compute with.
    """

    bundle: Path
    backend: str
    texts: tuple[str, ...]
    num_threads: int

    def start(self) -> Worker:
        """Open it in a process of its own."""
        settings = {
            "bundle": str(self.bundle),
            "backend": self.backend,
            "texts": self.texts,
            "num_threads": self.num_threads,
        }
        return Worker(f"{self.bundle.name} without a server", "benchmarks.alone:Alone", settings)


class Alone:
    """A runtime, another with a result cache, and the engine for calls that pass both by."""

    def __init__(self, *, bundle: str, backend: str, texts: list[str], num_threads: int) -> None:
        config = RuntimeConfig(num_threads=num_threads)
        self._texts = texts
        self._runtime = Runtime(Path(bundle), config=config, engine=backend)
        caching = RuntimeConfig(num_threads=num_threads, max_cache_bytes=_CACHE_BYTES)
        self._caching = Runtime(Path(bundle), config=caching, engine=backend)
        loaded = load_bundle(Path(bundle), config=config, engine=backend)
        self._engine = loaded.engine
        self._batches = [_batch(loaded.tokenizer, text) for text in texts[:_NUM_SINGLE_TEXTS]]

    def run(self) -> dict[str, float]:
        """Do one pass of each kind: the fields of an `AlonePass`."""
        started = time.perf_counter()
        self._runtime.embed(self._texts)
        seconds = time.perf_counter() - started
        single = self._texts[:_NUM_SINGLE_TEXTS]
        self._caching.embed(single)
        return {
            "texts_per_second": len(self._texts) / seconds,
            "embed_milliseconds": _median_milliseconds(
                lambda text: self._runtime.embed([text]), single
            ),
            "cached_milliseconds": _median_milliseconds(
                lambda text: self._caching.embed([text]), single
            ),
            "engine_milliseconds": _median_milliseconds(self._engine.run, self._batches),
        }

    def close(self) -> None:
        """Close runtimes and engine."""
        self._runtime.close()
        self._caching.close()
        self._engine.close()


def _batch(tokenizer: Tokenizer, text: str) -> Batch:
    [item] = tokenizer.encode(EmbedRequest(inputs=[text]))
    return collate([Row[None](item, "embedding", [None])])


def _median_milliseconds(call: Callable[[T], object], arguments: Sequence[T]) -> float:
    times: list[float] = []
    for argument in arguments:
        started = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
