"""infinity without its server: `AsyncEmbeddingEngine` on its torch engine."""

import asyncio
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Infinity:
    """An engine with the library's defaults: batches of 32, sorted by length."""

    def __init__(self, *, path: str, precision: str, num_threads: int, max_tokens: int) -> None:
        del max_tokens  # It reads the limit of the checkpoint.
        assert precision == "fp32"
        torch: Any = import_module("torch")
        torch.set_num_threads(num_threads)
        library: Any = import_module("infinity_emb")
        self._loop = asyncio.new_event_loop()
        self._engine = library.AsyncEmbeddingEngine.from_args(
            library.EngineArgs(
                model_name_or_path=path,
                engine="torch",
                device="cpu",
                dtype="float32",
                # optimum has dropped it.
                bettertransformer=False,
            )
        )
        self._loop.run_until_complete(self._engine.astart())
        self.engine = f"infinity {version('infinity-emb')}, torch {torch.__version__}"

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed in one call."""
        vectors, _ = self._loop.run_until_complete(self._engine.embed(sentences=texts))
        return np.array(vectors, np.float32)

    def padding_share(self) -> float | None:
        """Nothing tells of it from outside."""
        return None

    def close(self) -> None:
        """Stop the engine."""
        self._loop.run_until_complete(self._engine.astop())
        self._loop.close()
