"""How results look in the answers of vLLM's endpoints: numbers, base64 or bytes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, Field

from embed_runtime.types import EmbedResult, FloatArray, Task
from embed_runtime.vectors import ByteArray, EmbedDtype, Endianness, to_base64, to_bytes

EncodingFormat: TypeAlias = Literal["float", "base64", "bytes", "bytes_only"]


class EncodingFields(BaseModel):
    """What a caller wants values to look like."""

    encoding_format: EncodingFormat = Field(
        "float",
        description="`bytes` answers with the values' bytes one after another and describes them "
        "in the header `metadata`; `bytes_only` leaves the header out.",
    )
    embed_dtype: EmbedDtype = Field(
        "float32", description="Type of the values in base64 and bytes."
    )
    endianness: Endianness = Field("native", description="Byte order in base64 and bytes.")

    @property
    def wants_bytes(self) -> bool:
        """Whether the answer is no JSON."""
        return self.encoding_format in ("bytes", "bytes_only")


def split(result: EmbedResult, task: Task) -> Sequence[FloatArray]:
    """Give each input its own: [D] for `embed`, [T, D] for `token_embed`."""
    if task == "embed":
        return list(result.vectors)
    return np.split(result.vectors, result.offsets[1:-1])


def encode_values(fields: EncodingFields, result: EmbedResult, task: Task) -> Sequence[object]:
    """Write each input's values as something that orjson knows."""
    if fields.encoding_format != "base64":
        return split(result, task)
    if task == "embed":
        return to_base64(result.vectors, dtype=fields.embed_dtype, endianness=fields.endianness)
    return [
        text
        for matrix in split(result, task)
        for text in to_base64(
            matrix.reshape(1, -1), dtype=fields.embed_dtype, endianness=fields.endianness
        )
    ]


def encode_bytes(fields: EncodingFields, result: EmbedResult) -> ByteArray:
    """Write all values, row after row: [rows, bytes of one row]."""
    return to_bytes(result.vectors, dtype=fields.embed_dtype, endianness=fields.endianness)


def describe_bytes(
    fields: EncodingFields, result: EmbedResult, rows: ByteArray, task: Task
) -> list[dict[str, Any]]:
    """Say where in the bytes each input's values are."""
    num_bytes, size = rows.shape[1], result.vectors.shape[1]
    offsets = result.offsets.tolist()
    return [
        {
            "index": index,
            "embed_dtype": fields.embed_dtype,
            "endianness": fields.endianness,
            "start": start * num_bytes,
            "end": stop * num_bytes,
            "shape": [size] if task == "embed" else [stop - start, size],
        }
        for index, (start, stop) in enumerate(pairwise(offsets))
    ]
