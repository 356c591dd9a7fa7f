"""Vectors as base64, the form that most clients ask for."""

import pybase64

from embed_runtime.types import FloatArray
from embed_runtime.vectors import EmbedDtype, Endianness, to_bytes


def to_base64(
    vectors: FloatArray, *, dtype: EmbedDtype = "float32", endianness: Endianness = "little"
) -> list[str]:
    """Write each vector as base64 of its bytes: standard alphabet, padded, no header.

    The defaults are what clients of the OpenAI and Cohere APIs decode.

    Args:
        vectors: [N, D] float32.
        dtype: As in `to_bytes`.
        endianness: As in `to_bytes`.
    """
    rows = to_bytes(vectors, dtype=dtype, endianness=endianness)
    return [pybase64.b64encode_as_string(row) for row in rows]
