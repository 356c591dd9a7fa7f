"""Weights that are missing, damaged, lying or more than weights."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export.checkpoint import open_checkpoint
from embed_export.errors import ExportError
from embed_export.tokenizer import resolve_tokenizer
from embed_export.weight_files import open_weights
from embed_runtime.types import FloatArray

Refusal = Callable[..., str]
Arrays = dict[str, FloatArray]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory, arrays: Arrays) -> Path:
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(arrays, file)
    return file


def test_the_healthy_checkpoint_opens(checkpoint: Path, arrays: Arrays) -> None:
    opened = open_checkpoint(str(checkpoint))
    for name, array in arrays.items():
        np.testing.assert_array_equal(opened.weights.take(name, array.shape), array)
    assert resolve_tokenizer(opened).num_special_tokens == 2


def test_no_weights(checkpoint: Path, refusal: Refusal) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert refusal(checkpoint) == (
        f"{checkpoint} has no weights; looked for model.safetensors, model.safetensors.index.json,"
        " pytorch_model.bin, pytorch_model.bin.index.json"
    )


@pytest.mark.parametrize("num_bytes", [0, 4, 8, 40, 180, -4, -1])
def test_truncated_safetensors(checkpoint: Path, num_bytes: int, refusal: Refusal) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:num_bytes])
    message = refusal(checkpoint)
    assert message.startswith("model.safetensors is not safetensors (")
    assert message.endswith("fetch it again")


def header(*entries: tuple[str, str, list[int], list[int]], num_bytes: int) -> bytes:
    content = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, dtype, shape, offsets in entries
    }
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + bytes(num_bytes)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xff" * 64, id="not a header at all"),
        pytest.param((1 << 62).to_bytes(8, "little") + b"{}", id="header longer than the file"),
        pytest.param((8).to_bytes(8, "little") + b"[1, 2, 3]", id="header is a list"),
        pytest.param(header(("a", "F32", [2], [0, 8]), num_bytes=12), id="bytes nobody owns"),
        pytest.param(header(("a", "F32", [3], [0, 8]), num_bytes=8), id="shape larger than data"),
        pytest.param(header(("a", "F32", [2], [8, 16]), num_bytes=8), id="out of bounds"),
        pytest.param(header(("a", "F32", [2], [8, 0]), num_bytes=8), id="backwards"),
        pytest.param(header(("a", "F32", [-2], [0, 8]), num_bytes=8), id="negative size"),
        pytest.param(header(("a", "F99", [2], [0, 8]), num_bytes=8), id="unknown number type"),
        pytest.param(
            header(("a", "F32", [1 << 40, 1 << 40], [0, 8]), num_bytes=8), id="size overflows"
        ),
        pytest.param(
            header(("a", "F32", [2], [0, 8]), ("b", "F32", [2], [4, 12]), num_bytes=12),
            id="overlap",
        ),
        pytest.param(
            header(("a", "F32", [1], [0, 4]), ("b", "F32", [1], [8, 12]), num_bytes=12), id="hole"
        ),
    ],
)
def test_headers_that_lie(checkpoint: Path, content: bytes, refusal: Refusal) -> None:
    (checkpoint / "model.safetensors").write_bytes(content)
    assert refusal(checkpoint).startswith("model.safetensors is not safetensors (")


@given(data=st.data())
def test_a_flipped_bit_is_caught_or_inside_a_tensor(
    weights_file: Path, data: st.DataObject, arrays: Arrays
) -> None:
    content = bytearray(weights_file.read_bytes())
    data_start = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    folder = weights_file.parent / "flipped"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    try:
        weights = open_weights(folder)
        found = {name: weights.take(name, array.shape) for name, array in arrays.items()}
    except ExportError:
        return
    assert position >= data_start
    changed = sum(int((found[name] != array).sum()) for name, array in arrays.items())
    assert changed <= 1
    assert not weights.unused()


def test_a_flipped_bit_in_the_hubs_cache_is_always_caught(
    checkpoint: Path, refusal: Refusal
) -> None:
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    blob = checkpoint.parent / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    file.rename(blob)
    file.symlink_to(blob)
    open_checkpoint(str(checkpoint))
    content[-1] ^= 1
    blob.write_bytes(content)
    message = refusal(checkpoint)
    assert message.startswith("model.safetensors has SHA-256 ")
    assert f"the hub's has {blob.name[:12]}..." in message


@pytest.mark.parametrize("damage", ["truncate", "flip data", "flip pickle", "empty", "text"])
def test_a_damaged_pickle(checkpoint: Path, damage: str, refusal: Refusal, arrays: Arrays) -> None:
    import torch

    (checkpoint / "model.safetensors").unlink()
    file = checkpoint / "pytorch_model.bin"
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
    assert open_checkpoint(str(checkpoint)).weights.has("norm.bias")
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        del content[-100:]
    elif damage == "flip data":
        content[content.index(np.arange(12, dtype=np.float32).tobytes()) + 5] ^= 1
    elif damage == "flip pickle":
        content[content.index(b"embeddings.weight")] ^= 1
    else:
        content = bytearray(b"" if damage == "empty" else b"not weights")
    file.write_bytes(content)
    assert refusal(checkpoint).startswith("pytorch_model.bin ")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_never_runs_code(checkpoint: Path, plain: bool, refusal: Refusal) -> None:
    import torch

    witness = checkpoint / "it-ran"
    state = {"norm.bias": torch.ones(3), "x": Malicious(witness)}
    (checkpoint / "model.safetensors").unlink()
    with (checkpoint / "pytorch_model.bin").open("wb") as stream:
        pickle.dump(state, stream) if plain else torch.save(state, stream)
    assert "more than tensors" in refusal(checkpoint)
    assert not witness.exists()


@pytest.mark.parametrize("nested", [{"state_dict": {}, "epoch": 3}, [1, 2], {1: 2}])
def test_a_pickle_that_is_no_table_of_tensors(
    checkpoint: Path, nested: object, refusal: Refusal
) -> None:
    import torch

    (checkpoint / "model.safetensors").unlink()
    torch.save(nested, checkpoint / "pytorch_model.bin")
    assert "is no flat table of tensors" in refusal(checkpoint)


@pytest.fixture
def shards(checkpoint: Path, arrays: Arrays) -> Path:
    """The healthy checkpoint in two files; gives its index."""
    (checkpoint / "model.safetensors").unlink()
    files = {"embeddings.weight": "model-1.safetensors", "norm.bias": "model-2.safetensors"}
    for name, file in files.items():
        save_file({name: arrays[name]}, checkpoint / file)
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}), encoding="utf-8")
    return index


def test_healthy_shards_open(shards: Path, arrays: Arrays) -> None:
    assert open_checkpoint(str(shards.parent)).weights.names() == tuple(arrays)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "must be an object"),
        ({"norm.bias": 1}, "'norm.bias' is 1; it must be a string"),
        ({"norm.bias": "../model-2.safetensors"}, "it must be a .safetensors file in the same f"),
        ({"norm.bias": "/etc/passwd"}, "it must be a .safetensors file in the same folder"),
        ({"norm.bias": ".."}, "it must be a .safetensors file in the same folder"),
        ({"norm.bias": "pytorch_model.bin"}, "it must be a .safetensors file in the same folder"),
        ({"norm.bias": "model-9.safetensors"}, "model-9.safetensors is named by model.safetensors"),
        ({"norm.bias": "model-1.safetensors"}, "model-1.safetensors and model.safetensors.index"),
        ({"norm.bias": "model-2.safetensors", "more": "model-2.safetensors"}, "about 'more'"),
    ],
)
def test_an_index_that_lies(
    shards: Path, weight_map: object, message: str, refusal: Refusal
) -> None:
    shards.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert message in refusal(shards.parent)


def test_a_damaged_shard_is_named(shards: Path, refusal: Refusal) -> None:
    file = shards.parent / "model-2.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    assert refusal(shards.parent).startswith("model-2.safetensors is not safetensors")


def test_weights_that_are_a_folder(checkpoint: Path, refusal: Refusal) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").mkdir()
    assert refusal(checkpoint) == "model.safetensors cannot be read: Is a directory"


def test_a_dense_module_without_weights(checkpoint: Path, refusal: Refusal) -> None:
    kinds = ("Transformer", "Pooling", "Dense")
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": "" if not index else str(index)}
        for index, kind in enumerate(kinds)
    ]
    (checkpoint / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    for path, settings in (
        ("1", {"word_embedding_dimension": 3}),
        ("2", {"in_features": 3, "out_features": 2}),
    ):
        (checkpoint / path).mkdir()
        (checkpoint / path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert refusal(checkpoint).startswith(f"{checkpoint / '2'} has no weights")


def test_an_opened_checkpoint_whose_weights_vanish(checkpoint: Path) -> None:
    weights = open_checkpoint(str(checkpoint)).weights
    shutil.rmtree(checkpoint)
    with pytest.raises(ExportError, match=r"model\.safetensors cannot be read: No such file"):
        weights.take("norm.bias", (3,))


def test_an_opened_checkpoint_whose_weights_are_cut(checkpoint: Path) -> None:
    weights = open_checkpoint(str(checkpoint)).weights
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ExportError, match=r"model\.safetensors became shorter"):
        weights.take("norm.bias", (3,))
