"""Cost against size: tokens a second and memory of calls with one text up to very many."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.records.scaling import ScalingStep
from benchmarks.texts import draw_texts
from benchmarks.worker import Worker, peak_memory_bytes

# A call has one more digit than the one before.
_GROWTH = 10
_NUM_CORPUS_TEXTS = 1000
_WARM_UP_TEXTS = 1000
# Small calls are repeated until they have taken this long.
_MIN_SECONDS = 2.0


def measure_scaling(
    bundle: Path, *, num_threads: int, max_texts: int, words_per_text: int
) -> tuple[str, tuple[ScalingStep, ...]]:
    """Give the engine, and a step for each power of ten up to the largest call."""
    settings = {"path": str(bundle), "num_threads": num_threads, "words_per_text": words_per_text}
    steps: list[ScalingStep] = []
    with Worker("scaling", "benchmarks.scaling:Scaling", settings) as worker:
        engine: str = worker.call("warm_up").result
        num_texts = 1
        while num_texts <= max_texts:
            result = worker.call("measure", num_texts=num_texts).result
            steps.append(msgspec.convert(result, ScalingStep))
            num_texts *= _GROWTH
    return engine, tuple(steps)


class Scaling:
    """A runtime, and texts that never come twice."""

    def __init__(self, *, path: str, num_threads: int, words_per_text: int) -> None:
        from embed_runtime import Runtime, RuntimeConfig

        self._runtime = Runtime(path, config=RuntimeConfig(num_threads=num_threads))
        self._words = " ".join(draw_texts(_NUM_CORPUS_TEXTS)).split()
        self._words_per_text = words_per_text
        self._chooser = random.Random(0)  # noqa: S311 - not a secret

    def warm_up(self) -> str:
        """Embed a thousand texts and return the engine."""
        self._runtime.embed(self._texts(_WARM_UP_TEXTS))
        return self._runtime.engine_entry.producer

    def measure(self, *, num_texts: int) -> dict[str, object]:
        """Embed so many texts in one call, from an iterator: nobody holds all of them."""
        _forget_peak_memory()
        tokens_before = self._runtime.stats().tokens
        started = time.perf_counter()
        num_calls = vectors_bytes = 0
        while (seconds := time.perf_counter() - started) < _MIN_SECONDS or not num_calls:
            vectors_bytes = self._runtime.embed(self._texts(num_texts)).nbytes
            num_calls += 1
        num_tokens = self._runtime.stats().tokens - tokens_before
        return {
            "num_texts": num_texts,
            "num_calls": num_calls,
            "num_tokens": num_tokens,
            "seconds": seconds,
            "tokens_per_second": num_tokens / seconds,
            "vectors_bytes": vectors_bytes,
            "peak_memory_bytes": peak_memory_bytes(os.getpid()),
        }

    def close(self) -> None:
        """Close the runtime."""
        self._runtime.close()

    def _texts(self, count: int) -> Iterator[str]:
        for _ in range(count):
            yield " ".join(self._chooser.choices(self._words, k=self._words_per_text))


def _forget_peak_memory() -> None:
    """Start the high-water mark of this process's resident memory anew: proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")
