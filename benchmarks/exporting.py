"""An export step by step: how long each takes, and how much memory it holds at its highest."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """An export to measure; calling it opens the subject.

    Attributes:
        checkpoint: What is exported.
        output: Where to; replaced.
        precision: What in.
        engines: Which engines.
        texts: What the bundle embeds afterwards.
        num_threads: Threads of the original model and of the engine.
    """

    checkpoint: Path
    output: Path
    precision: Precision
    engines: tuple[str, ...]
    texts: tuple[str, ...]
    num_threads: int

    def __call__(self) -> "Export":
        """Open it in the process that is measured."""
        return Export(self)


def measure_export(
    workload: Workload, *, precision: Precision, engines: tuple[str, ...], num_threads: int
) -> ExportRun:
    """Export a workload's model in a process of its own, then open the bundle and use it."""
    spec = ExportSpec(
        checkpoint=workload.checkpoint,
        output=CACHE / "bundles" / f"{workload.name}-{precision}",
        precision=precision,
        engines=engines,
        texts=workload.texts,
        num_threads=num_threads,
    )
    with Worker(f"{workload.name} {precision}", spec) as worker:
        worker.run()
        steps, _ = worker.finish()
    manifest = read_manifest(spec.output)
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

    def __init__(self, spec: ExportSpec) -> None:
        import torch

        torch.set_num_threads(spec.num_threads)
        self._spec = spec
        self._steps: list[ExportStep] = []

    def run(self) -> None:
        """Export, open, embed."""
        from embed_export.config import ExportConfig
        from embed_export.export import export_bundle
        from embed_runtime import Runtime, RuntimeConfig

        spec = self._spec
        config = ExportConfig(
            model=str(spec.checkpoint),
            output=spec.output,
            precision=spec.precision,
            engines=spec.engines,
        )
        gauge = _MeasuredSteps(self._steps)
        export_bundle(config, gauge)
        with gauge.step("Opening the bundle"):
            runtime = Runtime(spec.output, config=RuntimeConfig(num_threads=spec.num_threads))
        with runtime, gauge.step(f"Embedding {len(spec.texts)} texts"):
            runtime.embed(spec.texts)

    def outcome(self) -> tuple[ExportStep, ...]:
        """Return the steps, in order."""
        return tuple(self._steps)

    def close(self) -> None:
        """Hold nothing, free nothing."""


@dataclass(slots=True)
class _MeasuredSteps:
    """The exporter's progress, kept as figures."""

    steps: list[ExportStep]
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
