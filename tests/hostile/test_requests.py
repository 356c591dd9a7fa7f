"""Hostile bodies on every endpoint: each gets an error of the API's own shape, or an answer."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

# Every endpoint that reads a body, and the field that holds what it is asked about.
FIELDS = {
    "/": "inputs",
    "/decode": "ids",
    "/detokenize": "tokens",
    "/embed": "inputs",
    "/embed_all": "inputs",
    "/embed_sparse": "inputs",
    "/invocations": "input",
    "/pooling": "input",
    "/rerank": "documents",
    "/score": "documents",
    "/similarity": "inputs",
    "/tokenize": "prompt",
    "/v1/embeddings": "input",
    "/v1/rerank": "documents",
    "/v1/score": "documents",
    "/v2/embed": "texts",
    "/v2/rerank": "documents",
}

# What stands in place of a proper value, as it is written in the body.
VALUES: dict[str, bytes] = {
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "wide list of nothing": b"[" + b"null," * 10_000 + b"null]",
    "number beyond floats": b"[1e400]",
    "integer of many digits": b"[" + b"9" * 5_000 + b"]",
    "integer beyond 64 bits": b"[18446744073709551616]",
    "negative id": b"[-1]",
    "not a number": b"[NaN]",
    "infinity": b"-Infinity",
    "lone surrogate": rb'"\ud800"',
    "lone surrogate in a list": rb'["a", "\udfff"]',
    "broken escape": rb'"\u12"',
    "broken utf-8": b'"\xff\xfe"',
    "overlong utf-8": b'"\xc0\xaf"',
    "control character": b'"a\x00b"',
    "no value": b"",
    "two values": b'"a" "b"',
    "comment": b'"a" // b',
    "object of strings": b'{"text": "a"}',
}

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "half an object": b'{"input": "a',
    "utf-16": '{"input": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"input": "a"}',
    "a field without quotes": b"{input: 1}",
    "a key of a megabyte": b'{"' + b"k" * 2**20 + b'": 1}',
    "a huge field of no meaning": b'{"unknown": "' + b"x" * 2**20 + b'"}',
    "a surrogate for a model": rb'{"model": "\ud800", "input": "a", "inputs": "a"}',
    "a list for a model": b'{"model": [], "input": "a", "inputs": "a"}',
}


@pytest.fixture
def client(dummy_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    with Runtime(dummy_bundle()) as runtime:
        yield TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))


def test_every_endpoint_with_a_body_is_here(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    with_body = {path for path, verbs in paths.items() if "requestBody" in verbs.get("post", {})}
    assert with_body == set(FIELDS)


def check(client: TestClient, path: str, body: bytes) -> None:
    """Send a body; what comes back must be an answer, or an error as this API writes it."""
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 404, 413, 422), response.text[:500]
    assert len(response.content) < 10_000
    answer = json.loads(response.content)
    if response.status_code == 200:
        return
    if "error_type" in answer:
        assert set(answer) == {"error", "error_type"}
    else:
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert answer["error"]["code"] == response.status_code


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_hostile_values(client: TestClient, path: str) -> None:
    for value in VALUES.values():
        field = FIELDS[path].encode()
        check(client, path, b'{"query": "a", "queries": "a", "%b": %b}' % (field, value))
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_hostile_bodies(client: TestClient, path: str) -> None:
    for body in BODIES.values():
        check(client, path, body)
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
