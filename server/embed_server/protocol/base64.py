"""Vectors as base64, the form that most clients ask for."""

import numpy as np
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
    num_bytes = rows.shape[1]
    padding = -num_bytes % 3
    # All rows in one call: each call lets other threads run in between. Padded to threes, every
    # row ends where a group of four characters ends, and zeros are what its last bits are anyway.
    whole = np.pad(rows, ((0, 0), (0, padding))) if padding else rows
    text = pybase64.b64encode_as_string(whole.data)
    length = (num_bytes + padding) // 3 * 4
    starts = range(0, length * len(rows), length) if length else [0] * len(rows)
    return [text[start : start + length - padding] + "=" * padding for start in starts]
