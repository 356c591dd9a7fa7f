"""Long texts over HTTP: in pieces where that is switched on, and Jina's late chunking."""

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_runtime.types import FloatArray
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

LONG = "word " * 100  # 102 tokens, where the model takes 64


def serve(runtime: Runtime, **options: Any) -> TestClient:
    config = ServerConfig(enable_chunked_processing=True, **options)
    return TestClient(create_app([ServedModel.of(runtime)], config))


def embed(client: TestClient, path: str, **fields: Any) -> FloatArray:
    """Embed one text on any of the routes."""
    name = {"/v1/embeddings": "input", "/v2/embed": "texts", "/embed": "inputs"}[path]
    response = client.post(path, json={name: [LONG], **fields})
    assert response.status_code == 200, response.text
    answer = response.json()
    if path == "/v1/embeddings":
        return np.array(answer["data"][0]["embedding"], np.float32)
    vectors = answer["embeddings"]["float"] if path == "/v2/embed" else answer
    return np.array(vectors[0], np.float32)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {}),
        ("/v1/embeddings", {"truncate_prompt_tokens": -1}),
        ("/v2/embed", {}),
        ("/v2/embed", {"truncate": "NONE"}),
        ("/embed", {}),
        ("/embed", {"truncate": True}),
    ],
)
def test_long_texts_are_read_in_pieces(runtime: Runtime, path: str, fields: dict[str, Any]) -> None:
    vector = embed(serve(runtime), path, **fields)
    assert np.array_equal(vector, runtime.embed(LONG, chunk=True))


def test_usage_counts_the_whole_text(runtime: Runtime) -> None:
    response = serve(runtime).post("/v1/embeddings", json={"input": LONG})
    assert response.json()["usage"]["prompt_tokens"] == 102


def test_a_text_that_is_cut_anyway_is_not_read_in_pieces(runtime: Runtime) -> None:
    vector = embed(serve(runtime), "/v1/embeddings", truncate_prompt_tokens=64)
    assert np.array_equal(vector, runtime.embed(LONG))


def test_the_longest_text_can_be_limited(runtime: Runtime) -> None:
    client = serve(runtime, max_embed_len=100)
    response = client.post("/v1/embeddings", json={"input": LONG})
    assert response.json()["error"]["param"] == "input_tokens"
    assert "maximum context length is 100 tokens" in response.json()["error"]["message"]
    ids = runtime.tokenizer.encode_text(LONG)
    kept = runtime.embed([[*ids[:99], ids[-1]]], chunk=True)[0]
    assert np.array_equal(embed(client, "/v2/embed"), kept)


def test_without_the_option_long_texts_are_as_before(client: TestClient, runtime: Runtime) -> None:
    assert client.post("/v1/embeddings", json={"input": LONG}).status_code == 400
    assert np.array_equal(embed(client, "/v2/embed"), runtime.embed(LONG))


def test_late_chunking_as_jinas_api_has_it(client: TestClient, runtime: Runtime) -> None:
    chunks = ["the model", "a long text about words"]
    body = {"input": chunks, "late_chunking": True, "dimensions": 8}
    answer = client.post("/v1/embeddings", json=body).json()
    vectors = np.array([item["embedding"] for item in answer["data"]], np.float32)
    assert np.array_equal(vectors, runtime.embed(chunks, late_chunking=True, dimensions=8))
    assert not np.allclose(vectors, runtime.embed(chunks, dimensions=8), atol=1e-2)
    assert answer["usage"]["prompt_tokens"] == 10
    response = client.post("/v1/embeddings", json={"input": [LONG, "a"], "late_chunking": True})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "input_tokens")
    assert error["message"].endswith(
        "103 tokens together, and the maximum context length is 64 tokens; send fewer at once"
    )
