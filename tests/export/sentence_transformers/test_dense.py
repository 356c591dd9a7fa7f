"""Dense modules: their weights under every name, and their activation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)

from embed_export.errors import ExportError
from embed_export.modules import read_modules
from embed_runtime.manifest import Dense

Edit = Callable[..., None]
LoadModel = Callable[..., Any]


@pytest.mark.parametrize("names", ["linear", "", "dense"])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_weights_are_found_under_every_name(
    make_checkpoint: Callable[..., Path], names: str, bias: bool, edit: Edit
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    file = folder / "2_Dense/model.safetensors"
    arrays = load_file(file)
    expected = arrays["linear.weight"], arrays["linear.bias"] if bias else None
    prefix = f"{names}." if names else ""
    save_file(
        {
            key.replace("linear.", prefix): array
            for key, array in arrays.items()
            if bias or "weight" in key
        },
        file,
    )
    edit(folder / "2_Dense/config.json", bias=bias)
    (head,) = read_modules(folder).heads
    weight, found = head.read()
    assert head.spec == Dense(in_features=32, out_features=16, bias=bias, activation="relu")
    np.testing.assert_array_equal(weight, expected[0])
    np.testing.assert_array_equal(found, expected[1])


def test_dense_weights_are_read_from_a_pickle(make_checkpoint: Callable[..., Path]) -> None:
    import torch

    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    file = folder / "2_Dense/model.safetensors"
    arrays = load_file(file)
    file.unlink()
    torch.save(
        {name: torch.tensor(array) for name, array in arrays.items()},
        file.with_name("pytorch_model.bin"),
    )
    weight, bias = read_modules(folder).heads[0].read()
    np.testing.assert_array_equal(weight, arrays["linear.weight"])
    np.testing.assert_array_equal(bias, arrays["linear.bias"])


def test_dense_weights_nobody_asked_for_are_refused(
    make_checkpoint: Callable[..., Path], edit: Edit
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    edit(folder / "2_Dense/config.json", bias=False)
    (head,) = read_modules(folder).heads
    with pytest.raises(ExportError, match=r"does not use: linear\.bias"):
        head.read()


def test_the_activation_defaults_to_the_originals(
    make_checkpoint: Callable[..., Path], edit: Edit, load_model: LoadModel
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    edit(folder / "2_Dense/config.json", activation_function=...)
    assert read_modules(folder).heads[0].spec.activation == "tanh"
    original = load_model(folder)
    assert type(original[2].activation_function).__name__ == "Tanh"
