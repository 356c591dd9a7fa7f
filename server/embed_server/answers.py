"""Responses that several endpoints give: JSON that is written already, and bare bytes."""

import json
import time

from starlette.responses import Response

from embed_runtime.types import EmbedResult, Task
from embed_server.protocol.encoding import EncodingFields, encode_bytes
from embed_server.protocol.shared import count_tokens


def json_response(content: bytes) -> Response:
    """Answer with JSON."""
    return Response(content, media_type="application/json")


def bytes_response(
    fields: EncodingFields, result: EmbedResult, task: Task, *, answer_id: str, model: str
) -> Response:
    """Answer with the bytes of all values, which the header `metadata` describes in ASCII JSON."""
    content, items = encode_bytes(fields, result, task)
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
