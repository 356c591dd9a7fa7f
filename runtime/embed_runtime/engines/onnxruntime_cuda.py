"""ONNX Runtime on an NVIDIA GPU: the packed graphs in the bundle's own precision."""

import contextlib
import io
from types import ModuleType

from embed_runtime.engines import (
    Availability,
    Backend,
    BuildSpec,
    BuiltEngine,
    Engine,
    LoadSpec,
    _cuda,
    _onnxruntime,
)
from embed_runtime.engines._library import MissingLibraryError, import_library
from embed_runtime.manifest import Dialect
from embed_runtime.types import Precision

_EXTRA = "embed-runtime[gpu]"
_PROVIDER = "CUDAExecutionProvider"
_OPTIONS = {
    # fp32 means fp32: TF32 keeps 10 bits of the mantissa.
    "use_tf32": "0",
    # Doubling at every step would take twice the memory that the largest batch needs.
    "arena_extend_strategy": "kSameAsRequested",
}
_DIALECTS: dict[Precision, Dialect] = {"fp16": "packed-fp16", "bf16": "packed-bf16"}


def _dialect(precision: Precision) -> Dialect:
    return _DIALECTS.get(precision, "packed")


def _precision(precision: Precision) -> Precision | None:
    """Refuse int8: the CUDA kernels of our int8 product run no faster than fp16."""
    return None if precision == "int8" else precision


def _probe() -> Availability:
    return _onnxruntime.probe(_EXTRA, _find_problem)


def _find_problem(library: ModuleType) -> str:
    if _PROVIDER not in library.get_available_providers():
        return (
            "the installed onnxruntime is for the CPU only; pip uninstall onnxruntime,"
            f' then pip install "{_EXTRA}"'
        )
    return _cuda.find_problem()


def _build(spec: BuildSpec) -> BuiltEngine:
    return _onnxruntime.build(spec, device="cuda", extra=_EXTRA)


def _load(spec: LoadSpec) -> Engine:
    # A missing library is reported below. What cannot be preloaded may still be found by the
    # linker, so what the call prints about it is not worth reading.
    with contextlib.suppress(MissingLibraryError), contextlib.redirect_stdout(io.StringIO()):
        import_library(("onnxruntime",), _EXTRA).preload_dlls()
    return _onnxruntime.load(spec, provider=_PROVIDER, options=_OPTIONS, extra=_EXTRA)


BACKEND = Backend(
    extra=_EXTRA,
    dialect=_dialect,
    precision=_precision,
    probe=_probe,
    build=_build,
    load=_load,
    max_batch_tokens=16384,
)
