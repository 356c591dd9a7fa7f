"""Engine backends: one file each, and the folder is the registry."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias

from embed_runtime.errors import BundleError
from embed_runtime.manifest import Device, Dialect, EngineEntry, Manifest
from embed_runtime.types import Batch, FloatArray, OutputName, Precision

RunBatch: TypeAlias = Callable[[Batch], dict[OutputName, FloatArray]]


class Engine(Protocol):
    """A loaded model on one device.

    Attributes:
        num_streams: As many threads may call `run` at once, and pay off.
    """

    num_streams: int

    @property
    def run_express(self) -> RunBatch | None:
        """How one more thread runs a small batch that would else wait for large ones.

        It takes its share of the processor from them, and they wait for nothing else. None where
        the engine cannot.
        """
        ...

    def run(self, batch: Batch) -> dict[OutputName, FloatArray]:
        """Compute `batch.outputs`.

        Returns:
            `embedding` and `pooled` as [B, D] float32; `token_embeddings` as [T, D] and
            `token_weights` as [T, 1] float32 in the ragged order of the batch; fresh arrays that
            no later call writes to.

        Raises:
            EngineError: The library failed.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a backend can run on this machine, and if not, why, in one line.

    Attributes:
        reason: Empty when it can run; else what is missing and what to install or do.
        producer: Library and version, like "openvino 2026.4.1"; empty when it is not importable.
        can_build: Whether it can build engines here, which may hold where it cannot run.
    """

    reason: str
    producer: str
    can_build: bool

    @property
    def can_run(self) -> bool:
        """Whether an engine can be loaded and run here."""
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """What a backend needs to build an engine from a graph.

    Attributes:
        folder: The bundle being written; every path below is relative to it.
        graph: The ONNX file to build from.
        weights: The external data of that file; all graphs of a bundle share one.
        dialect: Which inputs that file has.
        precision: What the engine computes in.
        max_tokens: Longest row.
        num_layers: Attention layers, to compare with the fused kernels in the build log.
    """

    folder: Path
    graph: str
    weights: str = "graphs/weights.bin"
    dialect: Dialect
    precision: Precision
    max_tokens: int
    num_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """What a backend's build wrote into the bundle."""

    file: str
    files: tuple[str, ...]
    producer: str
    device: Device
    targets: tuple[str, ...] = ()
    max_batch_tokens: int | None = None
    num_fused_attention: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """What a backend needs to load an engine whose files were checked already.

    Attributes:
        folder: The bundle.
        manifest: Its manifest.
        entry: The engine to load.
        num_threads: Threads of all its streams together; None for one per physical core.
        num_streams: Batches to compute at once, where the engine can; None for what it finds best.
    """

    folder: Path
    manifest: Manifest
    entry: EngineEntry
    num_threads: int | None = None
    num_streams: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One engine library: how to find it, build with it and load with it.

    Attributes:
        extra: What to install for it, like "embed-runtime[openvino]".
        dialect: The graph it is built from, for a bundle's precision.
        precision: What it computes in, for a bundle's precision; None if it cannot.
        probe: Says whether it can run here; never raises and loads no engine.
        build: Turns a graph into an engine; runs in a child process that exits afterwards.
        load: Opens an engine; raises BundleError when it was built for something else.
        max_batch_tokens: Tokens in one batch that keep this device busy.
    """

    extra: str
    dialect: Callable[[Precision], Dialect]
    precision: Callable[[Precision], Precision | None]
    probe: Callable[[], Availability]
    build: Callable[[BuildSpec], BuiltEngine]
    load: Callable[[LoadSpec], Engine]
    max_batch_tokens: int


def backend_names() -> list[str]:
    """List the backends: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")


def get_backend(name: str) -> Backend:
    """Import one backend and no other.

    Raises:
        BundleError: There is no such backend. A name from a bundle is looked up, never imported
            as a path.
    """
    if name not in backend_names():
        raise BundleError(f"unknown engine {name!r}; known engines: {', '.join(backend_names())}")
    backend = import_module(f"{__name__}.{name}").BACKEND
    assert isinstance(backend, Backend)
    return backend
