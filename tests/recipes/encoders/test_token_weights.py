"""The layer of mGTE that weighs tokens, for sparse vectors."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export.dialects import write_graphs

# Its types are loose.
onnxruntime: Any = import_module("onnxruntime")

HIDDEN = 32
# A fixture of conftest.py.
Make = Callable[..., Any]


def test_mgtes_classifier_weighs_tokens(make: Make, tmp_path: Path) -> None:
    tiny = make("new")
    source = tiny.source()
    assert source.spec.sparse is not None
    # [CLS], [PAD] and [UNK]; its tokenizer has no end of its own.
    assert source.spec.sparse.skipped_ids == (0, 1, 2)
    write_graphs(tmp_path, source)
    session = onnxruntime.InferenceSession(tmp_path / "graphs/padded.onnx")
    feeds = {"input_ids": np.arange(9, 49)[None], "attention_mask": np.ones((1, 40), np.int64)}
    states, weights = session.run(["token_embeddings", "token_weights"], feeds)
    head = tiny.tensors["classifier.weight"], tiny.tensors["classifier.bias"]
    expected = np.maximum(states @ head[0].T + head[1], 0)
    assert 0 < np.count_nonzero(expected) < expected.size
    assert np.abs(weights - expected).max() < 1e-5


def test_a_classifier_of_several_classes_is_for_another_task(make: Make) -> None:
    tiny = make("new")
    path = tiny.folder / "model.safetensors"
    classes = {"classifier.weight": np.ones((2, HIDDEN), np.float32)}
    save_file({**tiny.tensors, **classes}, path, metadata={"format": "pt"})
    assert tiny.source().spec.sparse is None
