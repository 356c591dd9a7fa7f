"""Responses that several endpoints give: JSON, and bare bytes. Large ones are made in threads."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping

from starlette.responses import Response, StreamingResponse

from embed_runtime.types import EmbedResult, Task
from embed_server.protocol.encoding import EncodingFields, encode_bytes
from embed_server.protocol.pieces import MAX_VALUES_AT_ONCE, dumps, iter_json
from embed_server.protocol.shared import count_tokens


async def json_answer(
    build: Callable[[], object], *, size: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; with more than a little, so that other requests are served meanwhile.

    Args:
        build: Gives what is written.
        size: About how many numbers that is.
        headers: More of them.
    """
    if size <= MAX_VALUES_AT_ONCE:
        return Response(dumps(build()), headers=headers, media_type="application/json")
    answer = await asyncio.to_thread(build)
    return StreamingResponse(iter_json(answer), headers=headers, media_type="application/json")


async def bytes_answer(
    fields: EncodingFields, result: EmbedResult, task: Task, *, answer_id: str, model: str
) -> Response:
    """Answer with the bytes of all values, which the header `metadata` describes in ASCII JSON."""
    if result.vectors.size <= MAX_VALUES_AT_ONCE:
        content, items = encode_bytes(fields, result, task)
    else:
        content, items = await asyncio.to_thread(encode_bytes, fields, result, task)
    response = Response(content, media_type="application/octet-stream")
    if fields.encoding_format == "bytes":
        metadata = {
            "id": answer_id,
            "created": int(time.time()),
            "model": model,
            "data": items,
            "usage": count_tokens(result),
        }
        response.headers["metadata"] = json.dumps(metadata)
    return response
