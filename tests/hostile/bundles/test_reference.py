"""References that are none, or of another model: `embed-export --verify` believes none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_export.probe import VECTORS_NAME
from embed_export.verify import verify_bundle
from embed_runtime.types import FloatArray

Opener = Callable[[Path], object]
Refuse = Callable[[Opener, Path], str]
Edit = Callable[[dict[str, Any]], None]
EditManifest = Callable[[Path, Edit], None]
Describe = Callable[[Path], None]


def test_a_reference_that_is_not_listed(
    bundle: Path, refuse: Refuse, edit_manifest: EditManifest
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        del manifest["files"][VECTORS_NAME]

    edit_manifest(bundle, edit)
    assert VECTORS_NAME in refuse(verify_bundle, bundle)


def _object_array(path: Path) -> None:
    np.save(path, np.array([[{}]] * 4, dtype=object), allow_pickle=True)


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, np.zeros((4, 32), np.float32))


def _other_size(path: Path) -> None:
    np.save(path, np.ones((4, 31), np.float32))


def _other_count(path: Path) -> None:
    np.save(path, np.ones((3, 32), np.float32))


def _no_array(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{")


@pytest.mark.parametrize(
    "write",
    [_object_array, _archive, _other_size, _other_count, _no_array],
    ids=lambda w: w.__name__,
)
def test_a_reference_that_is_none(
    bundle: Path, write: Callable[[Path], None], refuse: Refuse, describe_again: Describe
) -> None:
    write(bundle / VECTORS_NAME)
    describe_again(bundle)
    assert "reference" in refuse(verify_bundle, bundle)


def test_a_reference_of_other_vectors(
    bundle: Path, refuse: Refuse, describe_again: Describe
) -> None:
    vectors: FloatArray = np.ones((4, 32), np.float32)
    np.save(bundle / VECTORS_NAME, vectors)
    describe_again(bundle)
    assert "smallest cosine" in refuse(verify_bundle, bundle)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"texts": "abcd", "max_activation": 1, "versions": {}}',
        '{"texts": [1, 2, 3, 4], "max_activation": 1, "versions": {}}',
        '{"texts": ["a"], "max_activation": 1, "versions": {}}',
        '{"texts": ["\\ud800", "b", "c", "d"], "max_activation": 1, "versions": {}}',
        '{"texts": ' + "[" * 100_000,
    ],
    ids=lambda content: content[:40],
)
def test_texts_that_are_none(
    bundle: Path, content: str, refuse: Refuse, describe_again: Describe
) -> None:
    (bundle / "reference" / "texts.json").write_text(content)
    describe_again(bundle)
    assert "reference" in refuse(verify_bundle, bundle)
