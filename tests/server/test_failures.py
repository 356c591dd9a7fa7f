"""The contract's table of failures (section 1.5), row by row, on every endpoint it belongs to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime

TEMPLATE = "{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}x"
LONG = "word " * 80
CHAT = [{"role": "user", "content": "a"}]

# A good body for each endpoint; a failure changes some of its fields.
TEXTS: dict[str, dict[str, Any]] = {"/v1/embeddings": {"input": "a"}, "/pooling": {"input": "a"}}
PAIRS: dict[str, dict[str, Any]] = {
    "/score": {"queries": "a", "documents": "b"},
    "/v1/score": {"queries": "a", "documents": "b"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "/v2/embed": {"texts": ["a"]},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [5]},
    "/invocations": {"input": "a"},
}
EVERY = TEXTS | PAIRS | OTHERS

SCHEMA, LATER = (400, "Bad Request"), (400, "BadRequestError")

# Which endpoints; changed fields; status and type; param; words of the message.
ROWS: list[tuple[dict[str, Any], dict[str, Any], tuple[int, str], str | None, str]] = [
    (EVERY, {"model": "nope"}, (404, "NotFoundError"), "model", "'nope' does not exist"),
    (EVERY, {"model": 5}, SCHEMA, "body.model", "string"),
    (TEXTS, {"input": None}, SCHEMA, "body.input", "required"),
    (TEXTS, {"input": LONG}, LATER, "input_tokens", "maximum context length is 64 tokens"),
    (TEXTS, {"input": [5] * 65}, LATER, "input_tokens", "maximum context length is 64 tokens"),
    (TEXTS, {"input": [[]]}, LATER, None, "empty"),
    (TEXTS, {"input": "", "add_special_tokens": False}, LATER, None, "empty"),
    (TEXTS, {"input": []}, LATER, None, "at least one"),
    (TEXTS, {"input": [-1]}, LATER, None, "outside 0.."),
    (TEXTS, {"input": [10**7]}, LATER, None, "outside 0.."),
    (TEXTS, {"dimensions": 33}, LATER, None, "1..32"),
    (TEXTS, {"dimensions": 32.5}, SCHEMA, "body.dimensions", "integer"),
    (TEXTS, {"messages": CHAT, "chat_template": "x"}, LATER, None, "trust"),
    (TEXTS, {"messages": CHAT * 2}, LATER, None, "one only"),
    (TEXTS | PAIRS, {"truncate_prompt_tokens": 65}, LATER, None, "max_model_len=64"),
    (TEXTS | PAIRS, {"truncate_prompt_tokens": 0}, LATER, None, "empty"),
    (TEXTS | PAIRS, {"truncate_prompt_tokens": -2}, SCHEMA, "body.truncate_prompt_tokens", "-1"),
    (TEXTS | PAIRS, {"normalize": None}, LATER, "normalize", "use_activation"),
    (TEXTS | PAIRS, {"cache_salt": ""}, LATER, "cache_salt", "1 to 128"),
    (TEXTS | PAIRS, {"cache_salt": "x" * 129}, LATER, "cache_salt", "1 to 128"),
    (TEXTS | PAIRS, {"cache_salt": "a@b"}, LATER, "cache_salt", "1 to 128"),
    (TEXTS | PAIRS, {"mm_processor_kwargs": {"a": 1}}, LATER, "mm_processor_kwargs", "text only"),
    (TEXTS | PAIRS, {"media_io_kwargs": {"image": {}}}, LATER, "media_io_kwargs", "text only"),
    (TEXTS | PAIRS, {"padding": "max_length"}, SCHEMA, "body.padding", "do_not_pad"),
    (TEXTS | PAIRS, {"priority": 2**63}, SCHEMA, "body.priority", "less than"),
    (TEXTS | PAIRS, {"priority": "high"}, SCHEMA, "body.priority", "integer"),
    (TEXTS | PAIRS, {"use_activation": "perhaps"}, SCHEMA, "body.use_activation", "boolean"),
    ({"/pooling": TEXTS["/pooling"]}, {"task": "score"}, LATER, "task", "classify"),
    ({"/pooling": TEXTS["/pooling"]}, {"task": "plugin"}, LATER, "task", "token_embed"),
    ({"/v1/embeddings": {"input": "a"}}, {"late_chunking_params": {"chunk_size": 4}}, LATER,
     "late_chunking_params", "late_chunking: true"),
    ({"/v2/embed": OTHERS["/v2/embed"]}, {"input_type": "x"}, LATER, None, "['document', 'query']"),
    ({"/v2/embed": OTHERS["/v2/embed"]}, {"max_tokens": 65}, LATER, "truncate_prompt_tokens", "64"),
    ({"/v2/embed": OTHERS["/v2/embed"]}, {"images": ["x"]}, SCHEMA, "body", "exactly one"),
]  # fmt: skip


@pytest.fixture
def runtime(dummy_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    with Runtime(dummy_bundle(template=TEMPLATE)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("endpoints", "fields", "expected", "param", "words"),
    ROWS,
    ids=[str(row[1])[:40] for row in ROWS],
)
def test_rows(
    client: TestClient,
    endpoints: dict[str, dict[str, Any]],
    fields: dict[str, Any],
    expected: tuple[int, str],
    param: str | None,
    words: str,
) -> None:
    for url, body in endpoints.items():
        response = client.post(url, json=body | fields)
        error = response.json()["error"]
        found = (response.status_code, error["type"], error["param"])
        assert found == (*expected, param), (url, error)
        assert error["code"] == response.status_code
        assert words in error["message"], (url, error)


@pytest.mark.parametrize("url", EVERY)
def test_framing(client: TestClient, url: str) -> None:
    assert client.post(url, json=EVERY[url] | {"an_unknown_field": [1]}).status_code == 200
    plain = client.post(url, content=b"{}", headers={"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()["error"]["type"]) == SCHEMA
    assert "application/json" in plain.json()["error"]["message"]
    headers = {"Content-Type": "application/json"}
    broken = client.post(url, content=b'{"a" 1}', headers=headers)
    assert (broken.status_code, broken.json()["error"]["type"]) == SCHEMA
    assert broken.json()["error"]["param"] == "body.5"
    for document in (b"[]", b'"a"', b"null", b"5"):
        other = client.post(url, content=document, headers=headers)
        assert (other.status_code, other.json()["error"]["param"]) == (400, "body")
    assert client.get(url).status_code == 405


@pytest.mark.parametrize("url", [*TEXTS, *PAIRS])
def test_ids_come_from_the_header_then_from_the_body(client: TestClient, url: str) -> None:
    prefix = {"/v1/embeddings": "embd", "/pooling": "pooling"}.get(url, "score")
    body = EVERY[url] | {"request_id": "mine"}
    assert client.post(url, json=body).json()["id"] == f"{prefix}-mine"
    named = client.post(url, json=body, headers={"X-Request-Id": "theirs"})
    assert named.json()["id"] == f"{prefix}-theirs"
    assert named.headers["X-Request-Id"] == "theirs"
