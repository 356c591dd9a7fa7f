"""An export step by step: how long each takes, and how much memory it holds at its highest."""

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import psutil

from benchmarks.checkpoints import CACHE
from benchmarks.records.export import ExportRun, ExportStep
from benchmarks.worker import Worker
from benchmarks.workloads import Workload
from embed_export.progress import Advance
from embed_export.weight_files import open_weights
from embed_runtime.bundle import read_manifest
from embed_runtime.types import Precision

_SAMPLE_SECONDS = 0.02


def measure_export(
    workload: Workload, *, precision: Precision, engines: tuple[str, ...], num_threads: int
) -> ExportRun:
    """Export a workload's model in a process of its own, then open the bundle and use it."""
    bundle = CACHE / "exports" / f"{workload.name}-{precision}"
    settings = {
        "checkpoint": str(workload.checkpoint),
        "output": str(bundle),
        "precision": precision,
        "engines": engines,
        "texts": workload.texts,
        "num_threads": num_threads,
    }
    with Worker(f"{workload.name} {precision}", "benchmarks.exporting:Export", settings) as worker:
        steps = msgspec.convert(worker.call("run").result, tuple[ExportStep, ...])
    manifest = read_manifest(bundle)
    return ExportRun(
        name=workload.name,
        num_parameters=open_weights(workload.checkpoint).num_parameters,
        checkpoint_bytes=sum(
            path.stat().st_size for path in workload.checkpoint.glob("*.safetensors")
        ),
        weights_bytes=manifest.files["graphs/weights.bin"].num_bytes,
        precision=precision,
        engines=tuple(entry.producer for entry in manifest.engines),
        steps=steps,
    )


class Export:
    """One export, then the bundle opened and used, each step under the memory gauge."""

    def __init__(
        self,
        *,
        checkpoint: str,
        output: str,
        precision: Precision,
        engines: Sequence[str],
        texts: Sequence[str],
        num_threads: int,
    ) -> None:
        """Import what exports.

        Args:
            checkpoint: What is exported.
            output: Where to; replaced.
            precision: What in.
            engines: Which engines.
            texts: What the bundle embeds afterwards.
            num_threads: Threads of the original model and of the engine.
        """
        import torch

        from embed_export.config import ExportConfig

        torch.set_num_threads(num_threads)
        self._config = ExportConfig(
            model=checkpoint, output=Path(output), precision=precision, engines=tuple(engines)
        )
        self._texts = texts
        self._num_threads = num_threads

    def run(self) -> list[dict[str, object]]:
        """Export, open, embed; return the steps in order."""
        from embed_export.export import export_bundle
        from embed_runtime import Runtime, RuntimeConfig

        gauge = _MeasuredSteps()
        bundle, _ = export_bundle(self._config, gauge)
        with gauge.step("Opening the bundle"):
            runtime = Runtime(bundle, config=RuntimeConfig(num_threads=self._num_threads))
        with runtime, gauge.step(f"Embedding {len(self._texts)} texts"):
            runtime.embed(self._texts)
        return [msgspec.to_builtins(step) for step in gauge.steps]

    def close(self) -> None:
        """Hold nothing, free nothing."""


@dataclass(slots=True)
class _MeasuredSteps:
    """The exporter's progress, kept as figures."""

    steps: list[ExportStep] = field(default_factory=list[ExportStep])
    notes: list[str] = field(default_factory=list[str])

    @contextmanager
    def step(self, title: str) -> Generator[Advance, None, None]:
        """Measure a step for as long as the block runs."""
        started = time.perf_counter()
        with _MemoryGauge() as gauge:
            yield _ignore
        self.steps.append(
            ExportStep(
                title=title,
                seconds=time.perf_counter() - started,
                peak_memory_bytes=gauge.resident,
                peak_private_bytes=gauge.private,
            )
        )

    def note(self, line: str) -> None:
        """Keep a line."""
        self.notes.append(line)


class _MemoryGauge:
    """Looks every 20 ms at the memory of this process and of those it started.

    Attributes:
        resident: Largest sum of resident memory, bytes; pages of mapped files count.
        private: Largest sum without those pages, which the system takes back when it needs them.
    """

    def __init__(self) -> None:
        self.resident = 0
        self.private = 0
        self._process = psutil.Process()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-gauge", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        resident = private = 0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                memory = process.memory_info()
            except psutil.NoSuchProcess:
                continue
            resident += memory.rss
            private += memory.rss - memory.shared
        self.resident = max(self.resident, resident)
        self.private = max(self.private, private)


def _ignore(done: int, total: int) -> None:
    del done, total
