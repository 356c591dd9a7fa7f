"""fastembed on a model of one's own: the ONNX file that sentence-transformers exports."""

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAME = "local/model"


class Fastembed:
    """A model with the library's defaults: batches of 256."""

    def __init__(self, *, path: str, precision: str, num_threads: int, max_tokens: int) -> None:
        assert precision == "fp32"
        library: Any = import_module("fastembed")
        descriptions: Any = import_module("fastembed.common.model_description")
        library.TextEmbedding.add_custom_model(
            model=_NAME,
            pooling=descriptions.PoolingType[_pooling(Path(path))],
            normalization=True,
            sources=descriptions.ModelSource(hf=_NAME),
            dim=json.loads((Path(path) / "config.json").read_text())["hidden_size"],
            model_file="onnx/model.onnx",
        )
        self._model = library.TextEmbedding(_NAME, specific_model_path=path, threads=num_threads)
        # It reads the limit of the tokenizer's files, which may be below the model's.
        self._model.model.tokenizer.enable_truncation(max_tokens)
        self.engine = f"fastembed {version('fastembed')}, onnxruntime {version('onnxruntime')}"

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed in one call."""
        return np.array(list(self._model.embed(texts)), np.float32)

    def padding_share(self) -> float | None:
        """Nothing tells of it from outside."""
        return None

    def close(self) -> None:
        """Nothing is held that its process does not free."""


def _pooling(path: Path) -> str:
    """Read the pooling as fastembed names it, from either spelling of sentence-transformers."""
    config = json.loads((path / "1_Pooling/config.json").read_text())
    modes = {"pooling_mode_mean_tokens": "MEAN", "pooling_mode_cls_token": "CLS"}
    named = [name for key, name in modes.items() if config.get(key)]
    return named[0] if named else str(config["pooling_mode"]).upper()
