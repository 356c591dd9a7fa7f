"""The original model's vectors, kept in the bundle: what every engine is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from embed_runtime.errors import BundleError
from embed_runtime.manifest import Manifest, Record
from embed_runtime.types import FloatArray, IntArray

TEXTS_NAME = "reference/texts.json"
VECTORS_NAME = "reference/vectors.npy"
TOKENS_NAME = "reference/tokens.npy"
SPARSE_NAMES = ("reference/sparse_ids.npy", "reference/sparse_weights.npy")

_Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseReference:
    """Weights of words, text after text.

    Attributes:
        counts: Words that weigh anything, of each text that is for no task.
        ids: [total] int32, ascending within a text.
        weights: [total] float32, positive.
    """

    counts: tuple[int, ...]
    ids: IntArray
    weights: FloatArray

    def to_dense(self, dimensions: int) -> FloatArray:
        """Give [N, dimensions] float32, zeros included."""
        vectors = np.zeros((len(self.counts), dimensions), np.float32)
        vectors[np.repeat(np.arange(len(self.counts)), self.counts), self.ids] = self.weights
        return vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReference:
    """Vectors of tokens, text after text.

    Attributes:
        counts: Vectors of each text that is for no task; 0 where they are not kept.
        vectors: [total, D] float32.
    """

    counts: tuple[int, ...]
    vectors: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Vectors of the probe texts, from the original model in float32.

    Attributes:
        texts: Probe texts.
        tasks: What each text is embedded for, where the model has adapters: a task's name stands
            for its adapter and its prompt, None for neither. Empty: no text is for a task.
        vectors: [N, D] float32, what the graphs call `embedding`.
        sparse: What `sparse` must give for them; None if the model does not offer it.
        tokens: What `token_embed` must give for some of them; None if that is not known.
        max_activation: Largest absolute activation on the way.
        versions: Libraries that computed them.
    """

    texts: tuple[str, ...]
    vectors: FloatArray
    sparse: SparseReference | None = None
    tokens: TokenReference | None = None
    max_activation: float
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    tasks: tuple[str | None, ...] = ()

    @property
    def plain_texts(self) -> tuple[str, ...]:
        """The texts that are for no task: those that `sparse` and `tokens` are about."""
        return _plain(self.texts, self.tasks)


class _Texts(Record, kw_only=True):
    """`reference/texts.json`.

    `dimensions` is given where the vectors are the sparse weights, and then not stored again.
    """

    texts: tuple[str, ...]
    tasks: tuple[str | None, ...] = ()
    max_activation: float
    versions: dict[str, str]
    dimensions: int | None = None
    sparse_counts: tuple[int, ...] | None = None
    token_counts: tuple[int, ...] | None = None


def reference_names(manifest: Manifest) -> list[str]:
    """List the files a bundle's reference must have."""
    names = [TEXTS_NAME]
    if manifest.sparse is not None:
        names.extend(SPARSE_NAMES)
    if not manifest.is_splade:
        names.append(VECTORS_NAME)
    if manifest.token_head is not None:
        names.append(TOKENS_NAME)
    return names


def write_reference(folder: Path, reference: Reference, *, is_splade: bool = False) -> None:
    """Store the reference in a bundle, so that `--verify` needs no original.

    Args:
        folder: The bundle.
        reference: What to store.
        is_splade: Whether the vectors are the sparse weights, with all of their zeros.
    """
    (folder / TEXTS_NAME).parent.mkdir(exist_ok=True)
    sparse, tokens = reference.sparse, reference.tokens
    texts = _Texts(
        texts=reference.texts,
        tasks=reference.tasks,
        max_activation=reference.max_activation,
        versions=dict(reference.versions),
        dimensions=reference.vectors.shape[1] if is_splade else None,
        sparse_counts=None if sparse is None else sparse.counts,
        token_counts=None if tokens is None else tokens.counts,
    )
    content = msgspec.json.format(msgspec.json.encode(texts), indent=2) + b"\n"
    (folder / TEXTS_NAME).write_bytes(content)
    arrays: dict[str, _Array] = {}
    if not is_splade:
        arrays[VECTORS_NAME] = reference.vectors
    if sparse is not None:
        arrays |= dict(zip(SPARSE_NAMES, (sparse.ids, sparse.weights), strict=True))
    if tokens is not None:
        arrays[TOKENS_NAME] = tokens.vectors
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=False)


def read_reference(folder: Path) -> Reference:
    """Read what `write_reference` stored; the caller has checked the files' digests.

    Raises:
        BundleError: A file is missing or damaged, or they do not belong together.
    """
    try:
        stored = msgspec.json.decode((folder / TEXTS_NAME).read_bytes(), type=_Texts)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BundleError(f"{folder}: the reference cannot be read: {error}") from error
    if stored.tasks and len(stored.tasks) != len(stored.texts):
        raise BundleError(
            f"{folder / TEXTS_NAME} has {len(stored.tasks)} tasks for {len(stored.texts)} texts;"
            " export the model again"
        )
    sparse = _read_sparse(folder, stored)
    if stored.dimensions is None:
        vectors = _read_array(folder / VECTORS_NAME, np.float32, (len(stored.texts), None))
    else:
        vectors = _to_dense(folder, sparse, stored.dimensions)
    return Reference(
        texts=stored.texts,
        tasks=stored.tasks,
        vectors=vectors,
        sparse=sparse,
        tokens=_read_tokens(folder, stored),
        max_activation=stored.max_activation,
        versions=stored.versions,
    )


def _plain(texts: tuple[str, ...], tasks: tuple[str | None, ...]) -> tuple[str, ...]:
    if not tasks:
        return texts
    return tuple(text for text, task in zip(texts, tasks, strict=True) if task is None)


def _read_sparse(folder: Path, stored: _Texts) -> SparseReference | None:
    if stored.sparse_counts is None:
        return None
    total = _total(folder, stored, stored.sparse_counts)
    ids, weights = (folder / name for name in SPARSE_NAMES)
    return SparseReference(
        counts=stored.sparse_counts,
        ids=_read_array(ids, np.int32, (total,)),
        weights=_read_array(weights, np.float32, (total,)),
    )


def _read_tokens(folder: Path, stored: _Texts) -> TokenReference | None:
    if stored.token_counts is None:
        return None
    total = _total(folder, stored, stored.token_counts)
    vectors = _read_array(folder / TOKENS_NAME, np.float32, (total, None))
    return TokenReference(counts=stored.token_counts, vectors=vectors)


def _total(folder: Path, stored: _Texts, counts: Sequence[int]) -> int:
    if len(counts) != len(_plain(stored.texts, stored.tasks)) or min(counts, default=0) < 0:
        raise BundleError(f"{folder / TEXTS_NAME} counts other texts than it has; export again")
    return sum(counts)


def _to_dense(folder: Path, sparse: SparseReference | None, dimensions: int) -> FloatArray:
    try:
        if sparse is not None and (sparse.ids >= 0).all():
            return sparse.to_dense(dimensions)
    except (ValueError, IndexError, MemoryError):
        pass
    raise BundleError(
        f"{folder}: the reference has no weights for vectors of {dimensions} values; export again"
    )


def _read_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> _Array:
    """Read an array of finite numbers; of a size that is None only that it is not 0."""
    try:
        # Mapped first: a header that claims more than the file holds allocates nothing.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError) as error:
        raise BundleError(f"{path.parent}: the reference cannot be read: {error}") from error
    fits = len(mapped.shape) == len(shape) and all(
        size > 0 if wanted is None else size == wanted
        for size, wanted in zip(mapped.shape, shape, strict=True)
    )
    if mapped.dtype != dtype or not fits:
        raise BundleError(
            f"{path} holds {mapped.dtype} {mapped.shape}, not what its texts.json counts;"
            " export the model again"
        )
    array = np.array(mapped, order="C")
    if not np.isfinite(array).all():
        raise BundleError(f"{path} is not finite; export the model again")
    return array
