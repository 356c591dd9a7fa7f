"""TensorRT: builds for the GPU at hand, and runs on no other kind."""

from embed_runtime.engines._tensorrt import make_backend
from embed_runtime.engines._tensorrt_library import Edition

EDITION = Edition(
    name="tensorrt",
    modules=("tensorrt", "tensorrt_bindings"),
    extra="embed-runtime[tensorrt]",
    magic=b"",
    portable=False,
)
BACKEND = make_backend(EDITION)
