"""Bodies that nobody meant, at a real server: errors in the API's shape, memory flat, alive."""

import gzip
import http.client
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["the model", "a"], "dimensions": 8, "encoding_format": "base64"},
    "/v2/embed": {"texts": ["the model"], "embedding_types": ["float"], "truncate": "END"},
    "/pooling": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    "/score": {"queries": "a", "documents": ["b", {"text": "c"}], "max_tokens_per_doc": 4},
    "/rerank": {"query": "a", "documents": ["b", "c"], "top_n": 1},
    "/tokenize": {"prompt": "the model", "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/embed": {"inputs": [[5, 6], "a"], "truncate": True, "normalize": False},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/decode": {"ids": [[1], [2]], "skip_special_tokens": False},
}
SPLICES = (
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 400,
    b'"\\ud800"',
    b"\x00",
    b"\xff",
    b"{}",
)
NUM_MUTANTS = 60
MILLION = 10**6
# Lists of which every item is wrong; the first one is all that is told of.
WIDE: dict[str, tuple[bytes, bytes]] = {
    "/v1/embeddings": (b'{"messages": [%b{}]}', b"{},"),
    "/v2/embed": (b'{"texts": [%bnull]}', b"null,"),
    "/score": (b'{"queries": "a", "documents": [%bnull]}', b"null,"),
    "/detokenize": (b'{"tokens": [%bnull]}', b"null,"),
    "/embed": (b'{"inputs": [%bnull]}', b"null,"),
    "/similarity": (
        b'{"inputs": {"source_sentence": "a", "sentences": [%bnull]}}',
        b"null,",
    ),
    "/decode": (b'{"ids": [%bnull]}', b"null,"),
}


@pytest.fixture
def server(start_server: Any, dummy_bundle: Callable[..., Path]) -> Any:
    return start_server(dummy_bundle(template="{{ messages }}"))


@pytest.fixture
def post(server: Any) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Posts over one connection, which must survive all of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def send(path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        connection.request("POST", path, body, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        return response.status, response.read()

    yield send
    connection.close()


def check(path: str, status: int, content: bytes) -> None:
    """See that an answer is one, or an error as its endpoint writes it."""
    if status == 200:
        return
    answer = json.loads(content)
    assert len(content) < 20_000
    if path in ("/embed", "/similarity", "/decode") or "error_type" in answer:
        assert status in (404, 413, 422)
        assert set(answer) == {"error", "error_type"}
    else:
        assert status in (400, 404, 413)
        assert set(answer["error"]) == {"message", "type", "param", "code"}


def mutants(body: bytes) -> Iterator[bytes]:
    """Damage a body: cut it, splice something in, repeat or drop a piece, turn a bit."""
    chance = random.Random(body)  # noqa: S311
    for _ in range(NUM_MUTANTS):
        start, stop = sorted(chance.sample(range(len(body)), 2))
        piece = chance.choice(SPLICES)
        flipped = bytes([body[start] ^ (1 << chance.randrange(8))])
        yield chance.choice(
            [
                body[:start],
                body[:start] + piece + body[start:],
                body[:start] + piece + body[stop:],
                body[:stop] + body[start:],
                body[:start] + body[stop:],
                body[:start] + flipped + body[start + 1 :],
            ]
        )


def test_damaged_bodies(post: Callable[..., tuple[int, bytes]]) -> None:
    for path, fields in BODIES.items():
        body = json.dumps(fields).encode()
        assert post(path, body)[0] == 200
        for mutant in mutants(body):
            check(path, *post(path, mutant))
        assert post(path, body)[0] == 200


@pytest.mark.slow
def test_memory_stays_flat(post: Callable[..., tuple[int, bytes]], server: Any) -> None:
    process = psutil.Process(server.process.pid)
    nuls = json.dumps({"input": "\0" * MILLION, "truncate_prompt_tokens": -1}).encode()
    deep = b'{"input": ' + b"[" * MILLION + b"]" * MILLION + b"}"
    ids = b'{"input": [' + b"1," * MILLION + b"1]}"

    def send_all() -> float:
        for path, (frame, item) in WIDE.items():
            status, content = post(path, frame % (item * MILLION))
            check(path, status, content)
            assert status in (400, 422)
            assert b"1 validation error:" in content or b"2 validation errors:" in content
        for body, status in ((nuls, 200), (deep, 400), (ids, 400)):
            assert post("/v1/embeddings", body)[0] == status
        return process.memory_info().rss / 2**20

    send_all()
    before = send_all()
    after = [send_all() for _ in range(3)]
    assert after[-1] < before + 64
    assert post("/v1/embeddings", b'{"input": "a"}')[0] == 200
    assert server.stop() == 0


def test_encodings_that_are_not_json(post: Callable[..., tuple[int, bytes]]) -> None:
    text = '{"input": "caf\u00e9"}'
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"):
        status, content = post("/v1/embeddings", text.encode(encoding))
        check("/v1/embeddings", status, content)
        assert status == 400, encoding
    packed = gzip.compress(text.encode())
    status, content = post("/v1/embeddings", packed, **{"Content-Encoding": "gzip"})
    check("/v1/embeddings", status, content)
    assert status == 400
    twice = b'{"input": 7, "input": {"a": 1}, "input": "the model", "input": "a"}'
    assert post("/v1/embeddings", twice)[0] == 200
