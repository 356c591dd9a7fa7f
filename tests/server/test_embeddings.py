"""`/v1/embeddings`: what goes in, what comes out, and every mistake a caller can make."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_runtime.manifest import Dimensions
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.protocol.openai import EmbeddingsResponse
from embed_server.served_model import ServedModel

URL = "/v1/embeddings"
TEXT = "the model"
LONG = "word " * 100


def vectors_of(answer: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


def embed(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_answer_has_the_shape_it_documents(client: TestClient) -> None:
    answer = embed(client, input=[TEXT, "a long text"], model="dummy")
    EmbeddingsResponse.model_validate(answer, strict=True, extra="forbid")
    assert list(answer) == ["id", "object", "created", "model", "data", "usage"]
    assert answer["model"] == "dummy"
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"] == {
        "prompt_tokens": 9,
        "total_tokens": 9,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    assert np.allclose(np.linalg.norm(vectors_of(answer), axis=1), 1, atol=1e-6)


def test_answer_holds_the_runtimes_own_float32(client: TestClient, runtime: Runtime) -> None:
    texts = [TEXT, "", "find a place to play", TEXT]
    expected = runtime.embed(texts)
    floats = vectors_of(embed(client, input=texts))
    encoded = embed(client, input=texts, encoding_format="base64")["data"]
    decoded = np.array([np.frombuffer(base64.b64decode(i["embedding"]), "<f4") for i in encoded])
    assert np.array_equal(floats, expected)
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize(
    ("dtype", "endianness", "layout"),
    [
        ("float32", "native", "=f4"),
        ("float32", "little", "<f4"),
        ("float32", "big", ">f4"),
        ("float16", "big", ">f2"),
    ],
)
def test_encodings_of_bytes(
    client: TestClient, runtime: Runtime, dtype: str, endianness: str, layout: str
) -> None:
    texts = [TEXT, "", "find a place"]
    expected = runtime.embed(texts, dimensions=8).astype(layout).tobytes()
    num_bytes = len(expected) // 3
    body = {"input": texts, "dimensions": 8, "embed_dtype": dtype, "endianness": endianness}
    encoded = embed(client, **body, encoding_format="base64")["data"]
    assert b"".join(base64.b64decode(item["embedding"]) for item in encoded) == expected

    plain = client.post(URL, json=body | {"encoding_format": "bytes_only"})
    assert (plain.content, "metadata" in plain.headers) == (expected, False)
    assert plain.headers["Content-Type"] == "application/octet-stream"

    described = client.post(
        URL, json=body | {"encoding_format": "bytes", "request_id": "caf\u00e9\n"}
    )
    assert described.content == expected
    metadata = json.loads(described.headers["metadata"])
    assert (metadata["id"], metadata["model"]) == ("embd-caf\u00e9\n", "dummy")
    assert metadata["usage"] == {"prompt_tokens": 11, "total_tokens": 11}
    assert metadata["data"][1] == {
        "index": 1,
        "embed_dtype": dtype,
        "endianness": endianness,
        "start": num_bytes,
        "end": 2 * num_bytes,
        "shape": [8],
    }


@pytest.mark.parametrize(
    ("value", "num_inputs", "num_tokens"),
    [
        (TEXT, 1, 4),
        ([TEXT], 1, 4),
        (["1", "2"], 2, 6),
        ("", 1, 2),
        ([5, 6, 7], 1, 3),
        ([[5, 6, 7], [8]], 2, 4),
        ([5.0, True], 1, 2),
    ],
)
def test_input_shapes(client: TestClient, value: object, num_inputs: int, num_tokens: int) -> None:
    answer = embed(client, input=value)
    assert len(answer["data"]) == num_inputs
    assert answer["usage"]["prompt_tokens"] == num_tokens


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ({"dimensions": 8}, {"dimensions": 8}),
        ({"dimensions": 32}, {}),
        ({"dimensions": "8"}, {"dimensions": 8}),
        ({"dimensions": 8.0}, {"dimensions": 8}),
        ({"dimensions": None, "model": None, "user": None, "use_activation": None}, {}),
        ({"use_activation": False}, {"normalize": False}),
        ({"use_activation": "yes"}, {"normalize": True}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"task": "query"}, {"prompt_name": "query"}),
        ({"model": "", "user": "someone", "unknown_field": {"a": [1]}}, {}),
        ({"model": "tests/dummy", "priority": 3, "padding": "do_not_pad"}, {}),
        ({"embed_dtype": "float16", "endianness": "big"}, {}),  # for base64 and bytes alone
    ],
)
def test_fields(
    client: TestClient, runtime: Runtime, field: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert np.array_equal(
        vectors_of(embed(client, input=TEXT, **field)), runtime.embed([TEXT], **arguments)
    )


@pytest.mark.parametrize(
    ("fields", "text", "num_tokens"),
    [
        ({"truncate_prompt_tokens": -1}, "word " * 62, 64),
        ({"truncate_prompt_tokens": 64}, "word " * 62, 64),
        ({"truncate_prompt_tokens": 5}, "word word word", 5),
        ({"truncate_prompt_tokens": 5, "truncation_side": "right"}, "word word word", 5),
        ({"truncate_prompt_tokens": 5, "truncation_side": "left"}, "say say say", 5),
    ],
)
def test_truncation_keeps_special_tokens_on_both_sides(
    client: TestClient, runtime: Runtime, fields: dict[str, Any], text: str, num_tokens: int
) -> None:
    words, kept = "word " * 80 + "say " * 80, text
    answer = embed(client, input=words, **fields)
    assert answer["usage"]["prompt_tokens"] == num_tokens
    assert np.array_equal(vectors_of(answer), runtime.embed([kept]))


def test_add_special_tokens_false_feeds_the_text_alone(client: TestClient) -> None:
    answer = embed(client, input=TEXT, add_special_tokens=False)
    assert answer["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_of_tokens(client: TestClient, runtime: Runtime, encoding: str) -> None:
    texts = [TEXT, "find a place"]
    answer = embed(client, input=texts, pooling_task="token_embed", encoding_format=encoding)
    EmbeddingsResponse.model_validate(answer, strict=True, extra="forbid")
    outputs = runtime.encode(texts, task="token_embed")
    for item, expected in zip(answer["data"], outputs, strict=True):
        rows = item["embedding"]
        if encoding == "base64":
            rows = np.frombuffer(base64.b64decode(rows), "<f4").reshape(expected.data.shape)
        assert np.array_equal(np.array(rows, np.float32), expected.data)


def test_native_size_is_accepted_by_a_model_without_smaller_ones(
    dummy_bundle: Callable[..., Path],
) -> None:
    bundle = dummy_bundle(dimensions=Dimensions(native=32))
    with Runtime(bundle) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        assert vectors_of(embed(client, input=TEXT, dimensions=32)).shape == (1, 32)
        refused = client.post(URL, json={"input": TEXT, "dimensions": 16})
        assert refused.status_code == 400


@pytest.mark.parametrize(
    ("header", "body_id", "expected"),
    [("from-header", None, "embd-from-header"), ("a", "b", "embd-a"), (None, "b", "embd-b")],
)
def test_ids(client: TestClient, header: str | None, body_id: str | None, expected: str) -> None:
    headers = {"X-Request-Id": header} if header else {}
    body = {"input": TEXT} | ({"request_id": body_id} if body_id else {})
    response = client.post(URL, json=body, headers=headers)
    assert response.json()["id"] == expected
    assert response.headers["X-Request-Id"] == header or header is None


@pytest.mark.parametrize("header", [None, "x" * 129, "caf\u00e9"])
def test_without_a_usable_id_there_is_a_random_one(client: TestClient, header: str | None) -> None:
    headers = {b"X-Request-Id": header.encode("latin-1")} if header else {}
    first, second = (client.post(URL, json={"input": TEXT}, headers=headers) for _ in range(2))
    prefix, _, digits = first.json()["id"].partition("-")
    assert (prefix, len(digits)) == ("embd", 16)
    assert set(digits) <= set("0123456789abcdef")
    assert first.json()["id"] != second.json()["id"]
    assert first.headers["X-Request-Id"] == digits


SCHEMA, LATER = "Bad Request", "BadRequestError"


MISTAKES: list[tuple[Any, str, str | None, str]] = [
    ({"input": []}, LATER, None, "at least one"),
    ({"input": [[]]}, LATER, None, "empty"),
    ({"input": "", "add_special_tokens": False}, LATER, None, "empty"),
    ({"input": LONG}, LATER, "input_tokens", "maximum context length is 64"),
    ({"input": [TEXT, LONG]}, LATER, "input_tokens", "input 1"),
    ({"input": [5] * 65}, LATER, "input_tokens", "truncate_prompt_tokens=-1"),
    ({"input": [-1]}, LATER, None, "-1"),
    ({"input": [[1], [10**9]]}, LATER, None, "1000000000"),
    ({"input": [10**30]}, LATER, None, "token ids"),
    ({"input": TEXT, "truncate_prompt_tokens": 65}, LATER, None, "64"),
    ({"input": TEXT, "truncate_prompt_tokens": 0}, LATER, None, "empty"),
    ({"input": TEXT, "truncate_prompt_tokens": -2}, SCHEMA, "body.truncate_prompt_tokens", "-1"),
    ({"input": TEXT, "truncation_side": "up"}, SCHEMA, "body.truncation_side", "left"),
    ({"input": TEXT, "dimensions": 0}, LATER, None, "1..32"),
    ({"input": TEXT, "dimensions": 33}, LATER, None, "33"),
    ({"input": TEXT, "dimensions": -(10**30)}, LATER, None, "1..32"),
    ({"input": TEXT, "dimensions": 8.5}, SCHEMA, "body.dimensions", "integer"),
    ({"input": TEXT, "normalize": None}, LATER, "normalize", "use_activation"),
    ({"input": TEXT, "prompt_name": "nope"}, LATER, "prompt_name", "query"),
    ({"input": TEXT, "encoding_format": None}, SCHEMA, "body.encoding_format", "base64"),
    ({"input": TEXT, "encoding_format": "hex"}, SCHEMA, "body.encoding_format", "base64"),
    ({"input": TEXT, "embed_dtype": "int8"}, SCHEMA, "body.embed_dtype", "float32"),
    ({"input": TEXT, "padding": "max_length"}, SCHEMA, "body.padding", "do_not_pad"),
    ({"input": TEXT, "model": 7}, SCHEMA, "body.model", "string"),
    ({"input": TEXT, "user": ["x"] * 10**5}, SCHEMA, "body.user", "string"),
    ({}, SCHEMA, "body.input", "required"),
    ({"input": None}, SCHEMA, "body.input", "list of token ids"),
    ({"input": {"text": "a"}}, SCHEMA, "body.input", "list of token ids"),
    ({"input": [TEXT, 5]}, SCHEMA, "body.input.1", "5, unlike its neighbours"),
    ({"input": [5, None]}, SCHEMA, "body.input.1", "None"),
    ({"input": [5, 1.5]}, SCHEMA, "body.input.1", "1.5"),
    ({"input": [[5], [6, "a"]]}, SCHEMA, "body.input.1.1", "'a'"),
    ({"input": [[5], TEXT]}, SCHEMA, "body.input.1", TEXT),
    ({"input": [[[5]]]}, SCHEMA, "body.input.0.0", "[5]"),
    ([], SCHEMA, "body", "object"),
    ("text", SCHEMA, "body", "object"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "error_type", "param", "words"),
    MISTAKES,
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict | list) else None,
)
def test_mistakes(
    client: TestClient, body: object, error_type: str, param: str | None, words: str
) -> None:
    response = client.post(URL, json=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["type"], error["param"]) == (400, error_type, param)
    assert words in error["message"]
    assert len(response.content) < 1000
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "body.0"),
        (b"null", "body"),
        (b"{", "body.1"),
        (b'{"input": "x" "y"}', "body.14"),
        (b'{"input": "\\ud800"}', "body.11"),
        (b'{"input": "\\udc00\\ud800"}', None),
        (b'{"input": "caf\xe9"}', None),
        ('{"input": "text"}'.encode("utf-16"), None),
        (b'\xef\xbb\xbf{"input": "text"}', "body.0"),
        (b'{"input": ' + b"[" * 100_000, None),
        (b'{"input": ' + b"[" * 150 + b"]" * 150 + b"}", "body.input.0.0"),
        (b'{"a":' * 5000, None),
        (b'{"input": "x", "dimensions": NaN}', "body.dimensions"),
        (b'{"input": [NaN]}', "body.input.0"),
        (b'{"input": [1e400]}', None),
        (b'{"input": "x", "dimensions": ' + b"9" * 5000 + b"}", None),
        (b'{"input": [' + b"9" * 4000 + b"]}", None),
    ],
)
def test_hostile_bodies(client: TestClient, body: bytes, param: str | None) -> None:
    response = client.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] in {SCHEMA, LATER}
    assert param is None or error["param"] == param
    assert len(response.content) < 1000
    assert client.post(URL, json={"input": TEXT}).status_code == 200


def test_the_last_of_duplicate_keys_counts(client: TestClient, runtime: Runtime) -> None:
    body = b'{"input": "other", "input": "the model"}'
    response = client.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert np.array_equal(vectors_of(response.json()), runtime.embed([TEXT]))


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_media_types_are_refused(client: TestClient, media_type: str) -> None:
    response = client.post(URL, content=b'{"input": "x"}', headers={"Content-Type": media_type})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, SCHEMA, None)


def test_parameters_of_the_media_type_are_fine(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post(URL, content=b'{"input": "x"}', headers=headers).status_code == 200


def test_unknown_model_comes_before_other_mistakes(client: TestClient) -> None:
    response = client.post(URL, json={"input": LONG, "model": "m" * 10_000, "dimensions": 99})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (404, "NotFoundError")
    assert (error["param"], error["code"]) == ("model", 404)
    assert "'dummy'" in error["message"]
    assert len(error["message"]) < 300


def test_a_text_of_ten_megabytes_is_too_long(client: TestClient) -> None:
    response = client.post(URL, json={"input": "word " * 2_000_000})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input_tokens"
    cut = embed(client, input="word " * 2_000_000, truncate_prompt_tokens=-1)
    assert cut["usage"]["prompt_tokens"] == 64


def test_a_body_above_the_limit_is_refused(runtime: Runtime) -> None:
    client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(max_body_bytes=100)))
    response = client.post(URL, json={"input": "x" * 100})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (413, 413)
    assert "100 bytes" in error["message"]
