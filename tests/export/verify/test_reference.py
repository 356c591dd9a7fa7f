"""The original's vectors on disk: read as they were written, or refused."""

from pathlib import Path

import numpy as np
import pytest

from embed_export.probe import VECTORS_NAME, Reference, read_reference, write_reference
from embed_runtime import BundleError


def test_the_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    reference = Reference(
        texts=("", "\0 control", "\U0001f389 \u4f60\u597d", "line\nline"),
        vectors=np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
        max_activation=12.5,
        versions={"torch": "2.13.0"},
    )
    write_reference(tmp_path, reference)
    read = read_reference(tmp_path)
    assert (read.texts, read.versions, read.max_activation) == (
        reference.texts,
        reference.versions,
        reference.max_activation,
    )
    assert np.array_equal(read.vectors, reference.vectors)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((1, 0), np.float32),
        np.zeros(1, np.float32),
        np.zeros((1, 3), np.float64),
        np.full((1, 3), np.nan, np.float32),
        np.array([[{}]], dtype=object),
    ],
)
def test_vectors_that_do_not_fit_the_texts_are_refused(
    tmp_path: Path, vectors: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    reference = Reference(texts=("a",), vectors=np.ones((1, 3), np.float32), max_activation=1)
    write_reference(tmp_path, reference)
    np.save(tmp_path / VECTORS_NAME, vectors, allow_pickle=True)
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    reference = Reference(texts=("a",), vectors=np.ones((1, 3), np.float32), max_activation=1)
    write_reference(tmp_path, reference)
    path = tmp_path / VECTORS_NAME
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(1, 3), }" + b" " * 12, b"(1, 900000000000000)}"))
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)
    path.write_bytes(whole[:-4])
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)
