"""The backend of either edition of TensorRT."""

from functools import partial

from embed_runtime.engines import Availability, Backend, _cuda
from embed_runtime.engines._library import MissingLibraryError
from embed_runtime.engines._tensorrt_build import build
from embed_runtime.engines._tensorrt_engine import load
from embed_runtime.engines._tensorrt_library import Edition, portable_targets
from embed_runtime.engines._tensorrt_profiles import BATCH_TOKENS
from embed_runtime.manifest import Dialect
from embed_runtime.types import Precision

_DIALECTS: dict[Precision, Dialect] = {"fp16": "packed-fp16", "bf16": "packed-bf16"}


def make_backend(edition: Edition) -> Backend:
    """Put a backend together."""
    return Backend(
        extra=edition.extra,
        dialect=_dialect,
        precision=_precision,
        probe=partial(_probe, edition),
        build=partial(build, edition),
        load=partial(load, edition),
        max_batch_tokens=BATCH_TOKENS,
    )


def _dialect(precision: Precision) -> Dialect:
    return _DIALECTS.get(precision, "packed")


def _precision(precision: Precision) -> Precision | None:
    """Refuse int8: TensorRT takes it as Q/DQ nodes, which our graphs do not have."""
    return None if precision == "int8" else precision


def _probe(edition: Edition) -> Availability:
    try:
        trt = edition.load()
    except MissingLibraryError as error:
        return Availability(reason=str(error), producer="", can_build=False)
    reason = ""
    try:
        capability = _cuda.compute_capability()
    except _cuda.CudaError as error:
        reason = f"{edition.name} needs an NVIDIA GPU: {error}"
    else:
        if edition.portable and capability not in portable_targets(trt):
            reason = f"{edition.name} has no kernels for compute capability {capability}"
    return Availability(
        reason=reason,
        producer=edition.producer(trt),
        can_build=edition.portable or not reason,
    )
