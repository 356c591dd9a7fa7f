"""This project: a bundle and its default engine."""

import numpy as np
from numpy.typing import NDArray

from embed_runtime import Runtime, RuntimeConfig


class EmbedRuntime:
    """A runtime with its defaults."""

    def __init__(self, *, path: str, precision: str, num_threads: int, max_tokens: int) -> None:
        self._runtime = Runtime(path, config=RuntimeConfig(num_threads=num_threads))
        assert self._runtime.manifest.max_tokens == max_tokens
        assert self._runtime.manifest.precision == precision
        self.engine = self._runtime.engine_entry.producer

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed in one call, normalized."""
        return self._runtime.embed(texts, normalize=True)

    def padding_share(self) -> float | None:
        """Share of attention slots; every other operation runs on real tokens only."""
        return self._runtime.stats().padding_share

    def close(self) -> None:
        """Close the runtime."""
        self._runtime.close()
