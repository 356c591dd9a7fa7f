"""ONNX Runtime on the CPU: runs everywhere, in float32 or int8."""

from embed_runtime.engines import (
    Availability,
    Backend,
    BuildSpec,
    BuiltEngine,
    Engine,
    LoadSpec,
    _onnxruntime,
)
from embed_runtime.engines._int8 import int8_problem
from embed_runtime.errors import BundleError
from embed_runtime.types import Precision

_EXTRA = "embed-runtime[onnxruntime]"


def _precision(precision: Precision) -> Precision | None:
    """Weights in 16 bits are widened at load: this library's CPU kernels gain nothing from them."""
    if precision != "int8":
        return "fp32"
    return None if int8_problem() else "int8"


def _probe() -> Availability:
    return _onnxruntime.probe(_EXTRA, lambda _: "")


def _build(spec: BuildSpec) -> BuiltEngine:
    return _onnxruntime.build(spec, device="cpu", extra=_EXTRA)


def _load(spec: LoadSpec) -> Engine:
    if spec.entry.precision == "int8" and (problem := int8_problem()):
        raise BundleError(f"{spec.folder / spec.entry.file}: {problem}")
    return _onnxruntime.load(spec, provider="CPUExecutionProvider", options={}, extra=_EXTRA)


BACKEND = Backend(
    extra=_EXTRA,
    dialect=lambda precision: "packed-int8" if precision == "int8" else "packed",
    precision=_precision,
    probe=_probe,
    build=_build,
    load=_load,
    max_batch_tokens=512,
)
