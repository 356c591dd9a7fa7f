"""Vectors as base64: what clients decode."""

import base64

import numpy as np
import pytest

from embed_runtime.vectors import EmbedDtype
from embed_server.protocol.base64 import to_base64

# The worked example of the API contract, section 7.1.
VECTOR = np.array([[1.0, -2.0, 0.5, 0.25]], np.float32)


@pytest.mark.parametrize(
    ("dtype", "little", "big"),
    [
        ("float32", "AACAPwAAAMAAAAA/AACAPg==", "P4AAAMAAAAA/AAAAPoAAAA=="),
        ("float16", "ADwAwAA4ADQ=", "PADAADgANAA="),
        ("bfloat16", "gD8AwAA/gD4=", "P4DAAD8APoA="),
        ("fp8_e4m3", "OMAwKA==", "OMAwKA=="),
        ("fp8_e5m2", "PMA4NA==", "PMA4NA=="),
    ],
)
def test_worked_example(dtype: EmbedDtype, little: str, big: str) -> None:
    assert to_base64(VECTOR, dtype=dtype) == [little]
    assert to_base64(VECTOR, dtype=dtype, endianness="big") == [big]


def test_is_what_clients_decode() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    decoded = [np.frombuffer(base64.b64decode(one), "<f4") for one in to_base64(vectors)]
    assert np.array_equal(decoded, vectors)


def test_nothing_is_an_empty_text() -> None:
    assert to_base64(np.empty((2, 0), np.float32)) == ["", ""]
