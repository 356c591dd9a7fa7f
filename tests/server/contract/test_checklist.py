"""The contract's list of black-box tests: what no other file proves."""

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime.types import FloatArray

TEXTS = ["the model", "", "find a place to play"]
LONG = "word " * 100
SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}


def embed(client: TestClient, **body: Any) -> Any:
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response


def vectors(client: TestClient, **body: Any) -> FloatArray:
    answer = embed(client, **body).json()
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
@pytest.mark.parametrize("dtype", SIZES)
def test_bytes_in_every_order(able_client: TestClient, path: str, dtype: str) -> None:
    orders: dict[str, bytes] = {}
    for endianness in ("native", "little", "big"):
        body = {"input": TEXTS, "embed_dtype": dtype, "endianness": endianness}
        plain = able_client.post(path, json=body | {"encoding_format": "bytes_only"})
        answer = able_client.post(path, json=body | {"encoding_format": "base64"}).json()
        field = "embedding" if path == "/v1/embeddings" else "data"
        decoded = b"".join(base64.b64decode(item[field]) for item in answer["data"])
        assert decoded == plain.content
        assert len(decoded) == len(TEXTS) * 32 * SIZES[dtype]
        orders[endianness] = decoded
    words = np.frombuffer(orders["little"], f"u{SIZES[dtype]}")
    assert orders["native"] == words.astype(words.dtype.newbyteorder("=")).tobytes()
    assert orders["big"] == words.byteswap().tobytes()


@pytest.mark.parametrize("dimensions", [1, 8, 31, 32])
def test_cut_vectors_have_unit_length_unless_told_otherwise(
    able_client: TestClient, dimensions: int
) -> None:
    cut = vectors(able_client, input=TEXTS, dimensions=dimensions)
    assert np.allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)
    whole = vectors(able_client, input=TEXTS, use_activation=False)
    raw = vectors(able_client, input=TEXTS, dimensions=dimensions, use_activation=False)
    assert np.array_equal(raw, whole[:, :dimensions])


@pytest.mark.parametrize(
    ("body", "num_tokens"),
    [
        ({"input": LONG, "truncate_prompt_tokens": -1}, 64),
        ({"input": LONG, "truncate_prompt_tokens": 10}, 10),
        ({"input": LONG, "truncate_prompt_tokens": 10, "truncation_side": "left"}, 10),
        ({"input": [[5] * 90, [5]], "truncate_prompt_tokens": 10}, 11),
        ({"input": ["the model", "the model"]}, 8),
        ({"input": "the model", "add_special_tokens": False}, 2),
        ({"input": "the model", "prompt_name": "query"}, 6),
    ],
)
def test_usage_counts_what_the_model_read(
    able_client: TestClient, body: dict[str, Any], num_tokens: int
) -> None:
    usage = embed(able_client, **body).json()["usage"]
    assert usage == {
        "prompt_tokens": num_tokens,
        "total_tokens": num_tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def test_usage_of_pairs(able_client: TestClient) -> None:
    plain = {"queries": "the model", "documents": ["the model", "the model"]}
    one = able_client.post("/score", json=plain | {"documents": "the model"}).json()["usage"]
    two = able_client.post("/score", json=plain).json()["usage"]
    assert set(one) == set(two)
    assert one["prompt_tokens"] < two["prompt_tokens"] < 2 * one["prompt_tokens"]
    body = {"query": "the model", "documents": ["the model"]}
    ranking = able_client.post("/rerank", json=body).json()
    assert ranking["usage"] == {name: one[name] for name in ("prompt_tokens", "total_tokens")}


def test_digits_are_texts_and_empty_texts_are_legal(able_client: TestClient) -> None:
    digits = vectors(able_client, input=["1", "2"])
    assert np.array_equal(digits[:1], vectors(able_client, input="1"))
    assert vectors(able_client, input="").shape == (1, 32)


@pytest.mark.parametrize(
    ("path", "body", "prefix"),
    [
        ("/v1/embeddings", {"input": "a"}, "embd"),
        ("/v2/embed", {"texts": ["a"]}, "embd"),
        ("/pooling", {"input": "a"}, "pooling"),
        ("/score", {"queries": "a", "documents": "b"}, "score"),
        ("/rerank", {"query": "a", "documents": ["b"]}, "score"),
    ],
)
def test_ids(able_client: TestClient, path: str, body: dict[str, Any], prefix: str) -> None:
    random, again = (able_client.post(path, json=body).json()["id"] for _ in range(2))
    assert random != again
    assert len(random.removeprefix(f"{prefix}-")) == 16
    named = able_client.post(path, json=body | {"request_id": "mine"}).json()["id"]
    assert (named == f"{prefix}-mine") is (path != "/v2/embed")
    headers = {"X-Request-Id": "header"}
    response = able_client.post(path, json=body | {"request_id": "mine"}, headers=headers)
    assert response.json()["id"] == f"{prefix}-header"
    assert response.headers["X-Request-Id"] == "header"
