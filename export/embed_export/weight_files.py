"""The files that hold weights: found, checked against damage, opened as lists of tensors."""

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt

from embed_export.errors import ExportError
from embed_export.json_object import read_object
from embed_export.weights import StoredTensor, Weights
from embed_runtime.types import FloatArray

if TYPE_CHECKING:
    import torch

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
# The order in which transformers looks for them.
WEIGHT_NAMES = (
    SAFETENSORS_NAME,
    f"{SAFETENSORS_NAME}.index.json",
    PICKLE_NAME,
    f"{PICKLE_NAME}.index.json",
)

_PICKLE_SUFFIXES = {".bin", ".pt"}
_FETCH_AGAIN = "the file is damaged or was not fetched completely; fetch it again"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMPY_DTYPES: dict[str, npt.DTypeLike] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}


def open_weights(folder: Path) -> Weights:
    """Find a folder's weights and check their headers; the tensors stay on disk.

    Raises:
        ExportError: There are none, or a file is damaged or holds more than tensors.
    """
    for name in WEIGHT_NAMES:
        path = folder / name
        if path.exists():
            if name.endswith(".index.json"):
                return Weights(_open_shards(path))
            return Weights(_open_file(path))
    raise ExportError(f"{folder} has no weights; looked for {', '.join(WEIGHT_NAMES)}")


def open_weight_file(path: Path) -> Weights:
    """Open one file of weights and check its header; the tensors stay on disk.

    Raises:
        ExportError: It is damaged or holds more than tensors.
    """
    return Weights(_open_file(path))


def _open_shards(index: Path) -> dict[str, StoredTensor]:
    """Open every file of a sharded checkpoint and hold each to the names the index gives it."""
    tensors: dict[str, StoredTensor] = {}
    for file, names in _read_index(index).items():
        path = index.parent / file
        if not path.is_file():
            raise ExportError(f"{file} is named by {index.name} but is not there; fetch it")
        opened = _open_file(path)
        if names != opened.keys():
            name = min(names ^ opened.keys())
            raise ExportError(f"{file} and {index.name} disagree about {name!r}; fetch both again")
        tensors |= opened
    return tensors


def _read_index(index: Path) -> dict[str, set[str]]:
    """Read which tensor names each file of a sharded checkpoint holds."""
    weight_map = read_object(index, source=index.name).find_object("weight_map")
    if not weight_map:
        raise ExportError(f"{index.name} has no weight_map; {_FETCH_AGAIN}")
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    files: dict[str, set[str]] = {}
    for name in weight_map:
        file = weight_map.require(name, str)
        if Path(file).name != file or Path(file).suffix != suffix:
            raise weight_map.wrong(name, f"a {suffix} file in the same folder")
        files.setdefault(file, set()).add(name)
    return files


def _open_file(path: Path) -> dict[str, StoredTensor]:
    try:
        refuse_lfs_pointer(path)
        _refuse_other_bytes(path)
        return _open_pickle(path) if path.suffix in _PICKLE_SUFFIXES else _open_safetensors(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ExportError:
    return ExportError(f"{path.name} cannot be read: {error.strerror or error}")


def refuse_lfs_pointer(path: Path) -> None:
    """Stop at a file that only says where Git LFS keeps the real one.

    Raises:
        ExportError: It is one.
    """
    with path.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ExportError(
                f"{path.name} is a Git LFS pointer, not the file itself; run `git lfs pull` in"
                f" {path.parent}"
            )


def _refuse_other_bytes(path: Path) -> None:
    """Stop at bytes that are not those the hub published, where their hash is known."""
    expected = path.resolve().name
    # In the hub's cache a large file is a link to blobs/<its SHA-256>.
    if not path.is_symlink() or _SHA256.fullmatch(expected) is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise ExportError(
            f"{path.name} has SHA-256 {found[:12]}..., the hub's has {expected[:12]}...;"
            f" {_FETCH_AGAIN}"
        )


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        # Opening checks the whole header against the file: sizes, overlaps, holes, types.
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ExportError(f"{path.name} is not safetensors ({error}); {_FETCH_AGAIN}") from error
    with path.open("rb") as stream:
        num_bytes = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(num_bytes))
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            name=name,
            file=path.name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            read=_safetensors_reader(path, entry, start=8 + num_bytes),
        )
        for name, entry in header.items()
    }


def _safetensors_reader(
    path: Path, entry: Mapping[str, Any], *, start: int
) -> Callable[[], FloatArray]:
    def read() -> FloatArray:
        shape = tuple(entry["shape"])
        dtype, count = _NUMPY_DTYPES[entry["dtype"]], math.prod(shape)
        offset = start + entry["data_offsets"][0]
        try:
            stored: npt.NDArray[Any] = np.fromfile(path, dtype=dtype, count=count, offset=offset)
        except OSError as error:
            raise _unreadable(path, error) from error
        if stored.size != count:
            raise ExportError(f"{path.name} became shorter while it was read; start again")
        return stored.astype(np.float32, copy=False).reshape(shape)

    return read


def _open_pickle(path: Path) -> dict[str, StoredTensor]:
    import torch

    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ExportError(f"{path.name} has a wrong checksum at {damaged}; {_FETCH_AGAIN}")
    try:
        # Before PyTorch 1.6 the file was no zip archive, and such a file cannot be mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ExportError(
            f"{path.name} is damaged, or holds more than tensors, which is not loaded because it"
            " could run code; fetch it again or save it as model.safetensors"
        ) from error
    if not _is_state_dict(state):
        raise ExportError(
            f"{path.name} is no flat table of tensors; save the model's state dict on its own"
        )
    return {
        name: StoredTensor(
            name=name,
            file=path.name,
            dtype=_torch_dtype(tensor.dtype),
            shape=tuple(tensor.shape),
            read=_torch_reader(tensor),
        )
        for name, tensor in state.items()
    }


def _is_state_dict(state: object) -> "TypeGuard[dict[str, torch.Tensor]]":
    import torch

    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in cast("dict[object, object]", state).items()
    )


def _torch_dtype(dtype: "torch.dtype") -> str:
    """Spell a number type as safetensors does, as far as it can be exported."""
    import torch

    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    return names.get(dtype, str(dtype).removeprefix("torch."))


def _torch_reader(tensor: "torch.Tensor") -> Callable[[], FloatArray]:
    def read() -> FloatArray:
        import torch

        array: FloatArray = tensor.detach().to(torch.float32, copy=True).contiguous().numpy()
        return array

    return read
