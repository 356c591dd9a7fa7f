"""The original model's vectors, kept in the bundle: what every engine is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from embed_runtime.errors import BundleError
from embed_runtime.manifest import Record
from embed_runtime.types import FloatArray

TEXTS_NAME = "reference/texts.json"
VECTORS_NAME = "reference/vectors.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Vectors of the probe texts, from the original model in float32.

    Attributes:
        texts: Probe texts.
        tasks: What each text is embedded for, where the model has adapters: a task's name stands
            for its adapter and its prompt, None for neither. Empty: no text is for a task.
        vectors: [N, D] float32, what the graphs call `embedding`.
        max_activation: Largest absolute activation on the way.
        versions: Libraries that computed them.
    """

    texts: tuple[str, ...]
    vectors: FloatArray
    max_activation: float
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    tasks: tuple[str | None, ...] = ()


class _Texts(Record, kw_only=True):
    """`reference/texts.json`."""

    texts: tuple[str, ...]
    tasks: tuple[str | None, ...] = ()
    max_activation: float
    versions: dict[str, str]


def write_reference(folder: Path, reference: Reference) -> None:
    """Store the reference in a bundle, so that `--verify` needs no original."""
    (folder / TEXTS_NAME).parent.mkdir(exist_ok=True)
    texts = _Texts(
        texts=reference.texts,
        tasks=reference.tasks,
        max_activation=reference.max_activation,
        versions=dict(reference.versions),
    )
    content = msgspec.json.format(msgspec.json.encode(texts), indent=2) + b"\n"
    (folder / TEXTS_NAME).write_bytes(content)
    np.save(folder / VECTORS_NAME, reference.vectors, allow_pickle=False)


def read_reference(folder: Path) -> Reference:
    """Read what `write_reference` stored; the caller has checked the files' digests.

    Raises:
        BundleError: A file is missing or damaged, or the two do not belong together.
    """
    try:
        stored = msgspec.json.decode((folder / TEXTS_NAME).read_bytes(), type=_Texts)
        # Mapped first: a header that claims more than the file holds allocates nothing.
        mapped = np.lib.format.open_memmap(folder / VECTORS_NAME, mode="r")
    except (OSError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BundleError(f"{folder}: the reference cannot be read: {error}") from error
    if mapped.dtype != np.float32 or mapped.ndim != 2 or len(mapped) != len(stored.texts):
        raise BundleError(
            f"{folder / VECTORS_NAME} holds {mapped.dtype} {mapped.shape}, not a float32 row for"
            f" each of {len(stored.texts)} texts; export the model again"
        )
    if stored.tasks and len(stored.tasks) != len(stored.texts):
        raise BundleError(
            f"{folder / TEXTS_NAME} has {len(stored.tasks)} tasks for {len(stored.texts)} texts;"
            " export the model again"
        )
    vectors = np.array(mapped, dtype=np.float32, order="C")
    if not vectors.size or not np.isfinite(vectors).all():
        raise BundleError(f"{folder / VECTORS_NAME} is empty or not finite; export again")
    return Reference(
        texts=stored.texts,
        tasks=stored.tasks,
        vectors=vectors,
        max_activation=stored.max_activation,
        versions=stored.versions,
    )
