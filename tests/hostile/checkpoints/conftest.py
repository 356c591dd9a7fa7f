"""A small healthy checkpoint to damage, and the line that must refuse it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from embed_export.checkpoint import open_checkpoint
from embed_export.errors import ExportError
from embed_export.tokenizer import resolve_tokenizer
from embed_runtime.types import FloatArray

CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 400}


@pytest.fixture(scope="session")
def arrays() -> dict[str, FloatArray]:
    """All weights of the checkpoint."""
    return {
        "embeddings.weight": np.arange(12, dtype=np.float32).reshape(4, 3),
        "norm.bias": np.ones(3, np.float32),
    }


@pytest.fixture
def checkpoint(tmp_path: Path, dummy_tokenizer: Tokenizer, arrays: dict[str, FloatArray]) -> Path:
    """A small healthy checkpoint that the test may damage."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    dummy_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """Opens a checkpoint and its tokenizer; gives the line that refuses it."""

    def refusal(folder: Path | str, **options: Any) -> str:
        with pytest.raises(ExportError) as caught:
            resolve_tokenizer(open_checkpoint(str(folder), **options))
        message = str(caught.value)
        assert message
        assert "\n" not in message
        return message

    return refusal
