"""Run compiled embedding models: `Runtime("engines/all-MiniLM-L6-v2").embed(texts)`."""

from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import (
    BundleError,
    ClosedError,
    EmbedError,
    EngineError,
    InputError,
    InputTooLongError,
    NotFiniteError,
    OverloadedError,
    RequestTooLargeError,
)
from embed_runtime.runtime import Runtime
from embed_runtime.types import EmbedRequest, EmbedResult, PoolingOutput

__all__ = [
    "BundleError",
    "ClosedError",
    "EmbedError",
    "EmbedRequest",
    "EmbedResult",
    "EngineError",
    "InputError",
    "InputTooLongError",
    "NotFiniteError",
    "OverloadedError",
    "PoolingOutput",
    "RequestTooLargeError",
    "Runtime",
    "RuntimeConfig",
]
