"""One text, one vector: whatever API it was asked through."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohere import ClientV2
from openai import BadRequestError, OpenAI
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_runtime.types import FloatArray

TEXTS = ["find a place to play", "", "the model", "Über 你好"]
# Makes of a conversation what the tokenizer makes of a text.
TEMPLATE = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"


@pytest.fixture
def bundle(dummy_bundle: Callable[..., Path]) -> Path:
    return dummy_bundle(template=TEMPLATE)


@pytest.fixture
def runtime(bundle: Path) -> Iterator[Runtime]:
    with Runtime(bundle) as opened:
        yield opened


def floats(rows: Any) -> FloatArray:
    return np.array(rows, np.float32)


def decoded(rows: list[str]) -> FloatArray:
    return np.array([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])


def openai(client: TestClient, **body: Any) -> FloatArray:
    answer = client.post("/v1/embeddings", json=body).json()
    rows = [item["embedding"] for item in answer["data"]]
    return decoded(rows) if body.get("encoding_format") == "base64" else floats(rows)


def openai_bytes(client: TestClient, **body: Any) -> FloatArray:
    content = client.post("/v1/embeddings", json=body | {"encoding_format": "bytes_only"}).content
    return np.frombuffer(content, np.float32).reshape(len(TEXTS), -1)


def openai_ids(client: TestClient, **body: Any) -> FloatArray:
    texts = [
        client.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in body["input"]
    ]
    return openai(client, input=texts)


def openai_chat(client: TestClient, **body: Any) -> FloatArray:
    chats = [[{"role": "user", "content": text}] for text in body["input"]]
    return openai(client, messages=chats)


def pooling(client: TestClient, **body: Any) -> FloatArray:
    answer = client.post("/pooling", json=body).json()
    return floats([item["data"] for item in answer["data"]])


def cohere(client: TestClient, **body: Any) -> FloatArray:
    return floats(client.post("/v2/embed", json=body).json()["embeddings"]["float"])


def cohere_parts(client: TestClient, **body: Any) -> FloatArray:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in body["texts"]]
    answer = client.post("/v2/embed", json={"inputs": inputs, "embedding_types": ["base64"]})
    return decoded(answer.json()["embeddings"]["base64"])


def tei(client: TestClient, **body: Any) -> FloatArray:
    return floats(client.post("/embed", json=body).json())


def sagemaker(client: TestClient, **body: Any) -> FloatArray:
    answer = client.post("/invocations", json=body).json()
    return floats([item["embedding"] for item in answer["data"]])


PLAIN: list[tuple[Callable[..., FloatArray], dict[str, Any]]] = [
    (openai, {"input": TEXTS}),
    (openai, {"input": TEXTS, "encoding_format": "base64"}),
    (openai_bytes, {"input": TEXTS}),
    (openai_ids, {"input": TEXTS}),
    (openai_chat, {"input": TEXTS}),
    (pooling, {"input": TEXTS, "task": "embed"}),
    (cohere, {"texts": TEXTS}),
    (cohere_parts, {"texts": TEXTS}),
    (tei, {"inputs": TEXTS}),
    (sagemaker, {"input": TEXTS}),
]


@pytest.mark.parametrize(("ask", "body"), PLAIN)
def test_every_api_gives_the_runtimes_vectors(
    client: TestClient, runtime: Runtime, ask: Callable[..., FloatArray], body: dict[str, Any]
) -> None:
    assert np.array_equal(ask(client, **body), runtime.embed(TEXTS))


PROMPTED: list[tuple[Callable[..., FloatArray], dict[str, Any]]] = [
    (openai, {"input": TEXTS, "prompt_name": "query"}),
    (openai, {"input": TEXTS, "task": "query"}),
    (pooling, {"input": TEXTS, "prompt_name": "query"}),
    (cohere, {"texts": TEXTS, "input_type": "query"}),
    (cohere, {"texts": TEXTS, "input_type": "search_query"}),
    (tei, {"inputs": TEXTS, "prompt_name": "query"}),
    (openai, {"input": ["query: " + text for text in TEXTS]}),
]


@pytest.mark.parametrize(("ask", "body"), PROMPTED)
def test_every_api_puts_the_same_prompt_in_front(
    client: TestClient, runtime: Runtime, ask: Callable[..., FloatArray], body: dict[str, Any]
) -> None:
    assert np.array_equal(ask(client, **body), runtime.embed(TEXTS, prompt_name="query"))


@pytest.mark.parametrize(
    ("ask", "body"),
    [
        (openai, {"input": TEXTS, "dimensions": 8}),
        (pooling, {"input": TEXTS, "dimensions": 8}),
        (cohere, {"texts": TEXTS, "output_dimension": 8}),
        (tei, {"inputs": TEXTS, "dimensions": 8}),
    ],
)
def test_every_api_cuts_to_the_same_dimensions(
    client: TestClient, runtime: Runtime, ask: Callable[..., FloatArray], body: dict[str, Any]
) -> None:
    assert np.array_equal(ask(client, **body), runtime.embed(TEXTS, dimensions=8))


def test_scores_are_those_of_the_vectors(client: TestClient, runtime: Runtime) -> None:
    query, documents = TEXTS[0], TEXTS[1:]
    left = openai(client, input=[query], prompt_name="query")
    right = openai(client, input=documents, prompt_name="document")
    expected = (left @ right.T)[0]
    scored = client.post("/score", json={"queries": query, "documents": documents}).json()
    assert np.allclose([item["score"] for item in scored["data"]], expected, atol=1e-6)
    ranked = client.post("/rerank", json={"query": query, "documents": documents}).json()
    for item in ranked["results"]:
        assert item["relevance_score"] == pytest.approx(float(expected[item["index"]]), abs=1e-6)
    assert np.allclose(runtime.score(query, documents), expected, atol=1e-6)


def test_official_clients(start_server: Any, bundle: Path) -> None:
    server = start_server(bundle)
    with Runtime(bundle) as runtime:
        expected, prompted = runtime.embed(TEXTS), runtime.embed(TEXTS, prompt_name="query")
        scores = runtime.score(TEXTS[0], TEXTS)
    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        extra = {"prompt_name": "query"}
        answer = client.embeddings.create(model="dummy", input=TEXTS, extra_body=extra)
        assert np.array_equal(floats([one.embedding for one in answer.data]), prompted)
        chats = [[{"role": "user", "content": text}] for text in TEXTS]
        answer = client.embeddings.create(model="dummy", input="", extra_body={"messages": chats})
        assert np.array_equal(floats([one.embedding for one in answer.data]), expected)
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        body = {"messages": [{"role": "user", "content": [image]}]}
        with pytest.raises(BadRequestError, match="text only"):
            client.embeddings.create(model="dummy", input="a", extra_body=body)
    with ClientV2(base_url=server.url, api_key="none") as client:
        found = client.embed(
            model="dummy",
            texts=TEXTS,
            input_type="search_query",
            embedding_types=["float", "int8", "uint8"],
        ).embeddings
        assert np.array_equal(floats(found.float_), prompted)
        assert found.int8 is not None
        whole = floats(found.int8)
        cosines = (whole * prompted).sum(axis=1) / np.linalg.norm(whole, axis=1)
        assert cosines.min() > 0.9999
        assert found.uint8 == (whole + 128).astype(int).tolist()
        ranking = client.rerank(model="dummy", query=TEXTS[0], documents=TEXTS, top_n=3)
        assert [one.index for one in ranking.results] == np.argsort(-scores)[:3].tolist()
        best = ranking.results[0]
        assert best.relevance_score == pytest.approx(float(scores.max()), abs=1e-6)
    assert server.stop() == 0
