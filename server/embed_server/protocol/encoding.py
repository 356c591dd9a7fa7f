"""How results look in the answers of vLLM's endpoints: numbers, base64 or bytes."""

import sys
from binascii import b2a_base64
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, Field

from embed_runtime.types import EmbedResult, FloatArray, IntArray, Task
from embed_runtime.vectors import ByteArray, EmbedDtype, Endianness, to_bytes
from embed_server.protocol.base64 import to_base64

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


def encode_values(fields: EncodingFields, result: EmbedResult, task: Task) -> Sequence[object]:
    """Write each input's values as something that orjson knows.

    That is a vector for `embed`, a matrix for `token_embed`, and for `sparse` an object with the
    `indices` of tokens (int32) and their `values`. In base64 a matrix is flattened, row by row.
    """
    if task == "sparse":
        return _encode_sparse(fields, result)
    if task == "embed":
        return _to_base64(fields, result.vectors) if _is_base64(fields) else list(result.vectors)
    matrices = np.split(result.vectors, result.offsets[1:-1])
    if not _is_base64(fields):
        return matrices
    return [text for one in matrices for text in _to_base64(fields, one.reshape(1, -1))]


def encode_bytes(
    fields: EncodingFields, result: EmbedResult, task: Task
) -> tuple[bytes, list[dict[str, Any]]]:
    """Write all values one after another, and say for each input where its own are.

    Of `sparse` each input has its indices first, int32 in the same byte order.
    """
    offsets = result.offsets.tolist()
    columns = result.vectors if result.vectors.ndim == 2 else result.vectors[:, None]
    rows = to_bytes(columns, dtype=fields.embed_dtype, endianness=fields.endianness)
    chunks = [rows[start:stop] for start, stop in pairwise(offsets)]
    heads: Sequence[ByteArray | None] = [None] * len(chunks)
    if result.token_ids is not None:
        heads = np.split(_index_bytes(fields, result.token_ids), offsets[1:-1])
    size: list[int] = [*result.vectors.shape[1:]]
    parts: list[bytes] = []
    items: list[dict[str, Any]] = []
    start = 0
    for index, (head, chunk) in enumerate(zip(heads, chunks, strict=True)):
        order = {"embed_dtype": fields.embed_dtype, "endianness": fields.endianness}
        item: dict[str, Any] = {"index": index, **order}
        if head is not None:
            parts.append(head.tobytes())
            item |= {"indices_start": start, "indices_end": start + head.size}
            start += head.size
        parts.append(chunk.tobytes())
        item |= {"start": start, "end": start + chunk.size}
        item["shape"] = size if task == "embed" else [len(chunk), *size]
        start += chunk.size
        items.append(item)
    return b"".join(parts), items


def _is_base64(fields: EncodingFields) -> bool:
    return fields.encoding_format == "base64"


def _to_base64(fields: EncodingFields, rows: FloatArray) -> list[str]:
    return to_base64(rows, dtype=fields.embed_dtype, endianness=fields.endianness)


def _encode_sparse(fields: EncodingFields, result: EmbedResult) -> Sequence[object]:
    assert result.token_ids is not None
    indices = np.split(result.token_ids, result.offsets[1:-1])
    weights = np.split(result.vectors, result.offsets[1:-1])
    if not _is_base64(fields):
        pairs = zip(indices, weights, strict=True)
        return [{"indices": ids, "values": values} for ids, values in pairs]
    return [
        {
            "indices": b2a_base64(_index_bytes(fields, ids).tobytes(), newline=False).decode(
                "ascii"
            ),
            "values": _to_base64(fields, values.reshape(1, -1))[0],
        }
        for ids, values in zip(indices, weights, strict=True)
    ]


def _index_bytes(fields: EncodingFields, indices: IntArray) -> ByteArray:
    """Give the bytes of indices, [n, 4]."""
    if fields.endianness not in ("native", sys.byteorder):
        indices = indices.byteswap()
    return np.ascontiguousarray(indices)[:, None].view(np.uint8)
