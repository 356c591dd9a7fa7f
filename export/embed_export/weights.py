"""A checkpoint's tensors, read strictly and one at a time.

How a recipe uses them::

    weights = checkpoint.weights.renamed(strip_prefix("bert.")).renamed(layer_norm_names)
    word = weights.take("embeddings.word_embeddings.weight", (vocab_size, hidden_size))
    ...
    left_over = weights.unused()          # the exporter refuses those no allow list names

What damage is caught: a header that does not fit its file (any flipped bit, truncation, overlap),
names, shapes and number types other than the recipe's, NaN and infinity, and every changed byte of
a file from the hub's cache, where the file name is its SHA-256. What cannot be: a changed digit
inside a tensor of a file without a known hash.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias

import numpy as np

from embed_export.errors import ExportError
from embed_runtime.types import FloatArray

SourceDtype: TypeAlias = Literal["fp32", "fp16", "bf16"]

_SOURCE_DTYPES: dict[str, SourceDtype] = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_LEGACY_NORMS = (
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        name: Its name in the file.
        file: The file's name, for messages.
        dtype: Its number type, as safetensors spells it.
        shape: Its shape.
        read: Reads it, as float32 and as a fresh array, if `dtype` is F32, F16 or BF16.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], FloatArray]


class Weights:
    """Tensors under the names a recipe uses; remembers which were taken.

    Nothing is read before it is taken. No safetensors file stays open; a pickle stays mapped.
    """

    def __init__(
        self, tensors: Mapping[str, StoredTensor], *, taken: set[str] | None = None
    ) -> None:
        self._tensors = dict(tensors)
        # Stored names, shared with every renamed view: taken in one is taken in all.
        self._taken = set[str]() if taken is None else taken

    def renamed(self, rename: Callable[[str], str]) -> "Weights":
        """Give a view of the same tensors under other names; it shares what was taken.

        Args:
            rename: Turns a present name into the new one; returns other names as they are.

        Raises:
            ExportError: Two tensors would get the same name.
        """
        tensors: dict[str, StoredTensor] = {}
        for name, tensor in self._tensors.items():
            other = tensors.setdefault(rename(name), tensor)
            if other is not tensor:
                raise ExportError(
                    f"weights {other.name!r} and {tensor.name!r} are both the model's"
                    f" {rename(name)!r}; keep one of them"
                )
        return Weights(tensors, taken=self._taken)

    def names(self) -> tuple[str, ...]:
        """List all names, sorted."""
        return tuple(sorted(self._tensors))

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor of this name."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Tell a tensor's shape; None where there is none of this name."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.shape

    def take(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Read a tensor that the model needs.

        Returns:
            `shape` float32, a fresh array.

        Raises:
            ExportError: It is missing, has another shape, holds no 16- or 32-bit floating point
                numbers, or holds NaN or infinity.
        """
        tensor = self._find(name)
        if tensor.shape != shape:
            raise ExportError(
                f"{_describe(tensor, name)} has shape {list(tensor.shape)}, but config.json asks"
                f" for {list(shape)}"
            )
        if tensor.dtype not in _SOURCE_DTYPES:
            raise ExportError(
                f"{_describe(tensor, name)} holds {tensor.dtype} numbers; export a checkpoint with"
                f" {', '.join(_SOURCE_DTYPES)} weights"
            )
        array = tensor.read()
        if not np.isfinite(array).all():
            raise ExportError(
                f"{_describe(tensor, name)} holds NaN or infinity; the file is damaged"
            )
        self._taken.add(tensor.name)
        return array

    def take_all(self) -> None:
        """Count every tensor as taken: another reader has accounted for them."""
        self._taken.update(tensor.name for tensor in self._tensors.values())

    def unused(self) -> tuple[str, ...]:
        """List the names never taken, in this view's spelling, sorted."""
        return tuple(
            sorted(name for name, tensor in self._tensors.items() if tensor.name not in self._taken)
        )

    @property
    def num_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())

    @property
    def source_dtype(self) -> SourceDtype:
        """The floating point type that most numbers are stored in.

        Raises:
            ExportError: None is stored in one that can be exported.
        """
        sizes = dict.fromkeys(_SOURCE_DTYPES, 0)
        for tensor in self._tensors.values():
            if tensor.dtype in sizes:
                sizes[tensor.dtype] += math.prod(tensor.shape)
        if not any(sizes.values()):
            found = sorted({tensor.dtype for tensor in self._tensors.values()})
            raise ExportError(
                f"the weights hold {', '.join(found) or 'no'} numbers; export a checkpoint with"
                f" {', '.join(_SOURCE_DTYPES)} weights"
            )
        return _SOURCE_DTYPES[max(sizes, key=lambda dtype: sizes[dtype])]

    def _find(self, name: str) -> StoredTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            nearest = get_close_matches(name, self._tensors, n=1)
            hint = f"; the nearest name in it is {nearest[0]!r}" if nearest else ""
            raise ExportError(f"weight {name!r} is missing from the checkpoint{hint}")
        return tensor


def _describe(tensor: StoredTensor, name: str) -> str:
    stored_as = "" if tensor.name == name else f" (stored as {tensor.name!r})"
    return f"weight {name!r}{stored_as} in {tensor.file}"


def strip_prefix(*prefixes: str) -> Callable[[str], str]:
    """Make a rename for `Weights.renamed` that drops the first of `prefixes` that fits."""

    def rename(name: str) -> str:
        for prefix in prefixes:
            if name.startswith(prefix):
                return name[len(prefix) :]
        return name

    return rename


def layer_norm_names(name: str) -> str:
    """Rename `LayerNorm.gamma` and `.beta`, as TensorFlow conversions of BERT wrote them."""
    for old, new in _LEGACY_NORMS:
        if name == old or name.endswith(f".{old}"):
            return name.removesuffix(old) + new
    return name
