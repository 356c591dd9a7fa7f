"""Reading weights: every way they are stored gives the same numbers, and nothing is guessed."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)

from embed_export.errors import ExportError
from embed_export.weight_files import open_weights
from embed_export.weights import layer_norm_names, strip_prefix
from embed_runtime.types import FloatArray

WORDS = "embeddings.word_embeddings.weight"


def published(folder: Path) -> dict[str, FloatArray]:
    """Load a plain fp32 checkpoint's floating point tensors with the safetensors library."""
    arrays = load_file(folder / "model.safetensors")
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


@pytest.mark.parametrize("storage", ["safetensors", "sharded", "pickle", "sharded-pickle"])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("fp32", np.float32), ("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)],
)
def test_every_storage_gives_the_published_numbers(
    make_checkpoint: Callable[..., Path], storage: str, dtype: str, stored: type
) -> None:
    expected = published(make_checkpoint("bert"))
    weights = open_weights(make_checkpoint("bert", dtype=dtype, storage=storage))
    assert weights.names() == tuple(sorted([*expected, "embeddings.position_ids"]))
    assert weights.source_dtype == dtype
    assert weights.num_parameters == sum(array.size for array in expected.values()) + 128
    for name, array in expected.items():
        found = weights.take(name, array.shape)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, array.astype(stored).astype(np.float32))
    assert weights.unused() == ("embeddings.position_ids",)


@pytest.mark.parametrize("storage", ["safetensors", "pickle"])
def test_taken_arrays_are_fresh(make_checkpoint: Callable[..., Path], storage: str) -> None:
    weights = open_weights(make_checkpoint("bert", storage=storage))
    first = weights.take(WORDS, (400, 32))
    first += 1
    np.testing.assert_array_equal(weights.take(WORDS, (400, 32)) + 1, first)


def test_views_share_what_was_taken(make_checkpoint: Callable[..., Path]) -> None:
    stored = open_weights(make_checkpoint("bert", prefixed=True, legacy_norms=True))
    assert stored.has("bert.embeddings.LayerNorm.gamma")
    plain = stored.renamed(strip_prefix("bert.")).renamed(layer_norm_names)
    for name, array in published(make_checkpoint("bert")).items():
        np.testing.assert_array_equal(plain.take(name, array.shape), array)
    left_over = plain.unused()
    assert "embeddings.position_ids" in left_over
    assert {name.partition(".")[0] for name in left_over} == {"embeddings", "cls"}
    assert "bert.embeddings.position_ids" in stored.unused()
    assert len(stored.unused()) == len(left_over)


def test_renames() -> None:
    strip = strip_prefix("model.", "bert.")
    assert strip("bert.encoder.x") == "encoder.x"
    assert strip("model.bert.x") == "bert.x"
    assert strip("cls.bert.x") == "cls.bert.x"
    assert layer_norm_names("a.LayerNorm.gamma") == "a.LayerNorm.weight"
    assert layer_norm_names("LayerNorm.beta") == "LayerNorm.bias"
    assert layer_norm_names("a.LayerNorm.weight") == "a.LayerNorm.weight"
    assert layer_norm_names("a.BatchNorm.gamma") == "a.BatchNorm.gamma"


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    one = np.ones(2, np.float32)
    save_file({"bert.x": one, "x": one}, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match=r"'bert\.x' and 'x' are both the model's 'x'"):
        open_weights(tmp_path).renamed(strip_prefix("bert."))


def test_a_wrong_shape_names_both(make_checkpoint: Callable[..., Path]) -> None:
    weights = open_weights(make_checkpoint("bert", prefixed=True)).renamed(strip_prefix("bert."))
    with pytest.raises(ExportError) as caught:
        weights.take(WORDS, (400, 33))
    assert str(caught.value) == (
        f"weight '{WORDS}' (stored as 'bert.{WORDS}') in model.safetensors has shape [400, 32],"
        " but config.json asks for [400, 33]"
    )
    assert WORDS in weights.unused()


def test_a_missing_weight_names_the_nearest(make_checkpoint: Callable[..., Path]) -> None:
    weights = open_weights(make_checkpoint("bert"))
    with pytest.raises(ExportError, match=f"is missing from .* nearest name in it is '{WORDS}'"):
        weights.take("word_embeddings.weight", (400, 32))
    with pytest.raises(ExportError, match=r"'1234' is missing from the checkpoint$"):
        weights.take("1234", (1,))


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint8, ml_dtypes.float8_e4m3fn])
def test_other_number_types_are_refused(tmp_path: Path, dtype: type) -> None:
    save_file({"x": np.ones(2, dtype), "y": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    with pytest.raises(ExportError, match=r"'x' in model\.safetensors holds \w+ numbers; export"):
        weights.take("x", (2,))
    assert weights.source_dtype == "fp32"


def test_a_checkpoint_of_integers_has_no_source_dtype(tmp_path: Path) -> None:
    save_file({"x": np.ones(2, np.int32)}, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match="the weights hold I32 numbers"):
        _ = open_weights(tmp_path).source_dtype


def test_the_source_dtype_is_that_of_most_numbers(tmp_path: Path) -> None:
    save_file(
        {"x": np.ones(9, np.float16), "y": np.ones(8, np.float32), "z": np.ones(99, np.int64)},
        tmp_path / "model.safetensors",
    )
    assert open_weights(tmp_path).source_dtype == "fp16"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, value: float) -> None:
    save_file({"x": np.array([0, value], np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match="holds NaN or infinity"):
        open_weights(tmp_path).take("x", (2,))


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    save_file(
        {"scalar": np.array(3, np.float32), "empty": np.zeros((0, 4), np.float32)},
        tmp_path / "model.safetensors",
    )
    weights = open_weights(tmp_path)
    assert weights.take("scalar", ()) == 3
    assert weights.take("empty", (0, 4)).shape == (0, 4)


def test_safetensors_win_over_pickles(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert")
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    assert open_weights(folder).has(WORDS)
