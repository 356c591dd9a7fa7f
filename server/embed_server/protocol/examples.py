"""Bodies for the documentation page, written as they go over the wire."""

import orjson
from pydantic import ConfigDict

_LIST = """{"id": "%s-3f9a1c07be52d864", "object": "list", "created": 1767225600,
    "model": "all-MiniLM-L6-v2", "data": [%s],
    "usage": {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0,
        "prompt_tokens_details": null, "completion_tokens_details": null}}"""


def examples(*bodies: str) -> ConfigDict:
    """Show bodies (JSON) beside a model."""
    return ConfigDict(json_schema_extra={"examples": [orjson.loads(body) for body in bodies]})


def list_example(prefix: str, item: str) -> ConfigDict:
    """Show an answer of OpenAI's kind: the prefix of its id, and an item of its list (JSON)."""
    return examples(_LIST % (prefix, item))
