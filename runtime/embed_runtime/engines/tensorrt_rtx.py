"""TensorRT-RTX: builds on any machine, one plan for compute capability 8.0 to 12.1 but not 9.0."""

from embed_runtime.engines._tensorrt import make_backend
from embed_runtime.engines._tensorrt_library import Edition

EDITION = Edition(
    name="tensorrt_rtx",
    modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    extra="embed-runtime[tensorrt-rtx]",
    magic=b"vtrt",
    portable=True,
)
BACKEND = make_backend(EDITION)
