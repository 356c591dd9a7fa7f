"""The API of text-embeddings-inference, by hand and with its own client."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from starlette.testclient import TestClient

from embed_runtime import EngineError, OverloadedError, Runtime, RuntimeConfig
from embed_runtime.manifest import Dimensions
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

TEXTS = ["the model", "a long text about words"]
LONG = "word " * 100


def post(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("path", ["/embed", "/"])
@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("the model", ["the model"]),
        (TEXTS, TEXTS),
        ([7, 8, 9], [[7, 8, 9]]),
        ([[7, 8], [9]], [[7, 8], [9]]),
        (["the model", [7, 8]], ["the model", [7, 8]]),
        (["1", "2"], ["1", "2"]),
        ("", [""]),
    ],
)
def test_embed_takes_every_shape_of_input(
    client: TestClient, runtime: Runtime, path: str, inputs: object, expected: Any
) -> None:
    vectors = np.array(post(client, path, inputs=inputs), np.float32)
    assert np.array_equal(vectors, runtime.embed(expected))


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"normalize": False}, {"normalize": False}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"dimensions": 8}, {"dimensions": 8}),
        ({"truncate": True}, {"truncate": "END"}),
        ({"truncate": True, "truncation_direction": "Left"}, {"truncate": "START"}),
        ({"truncate": None, "unknown": 1, "model": "dummy"}, {}),
    ],
)
def test_fields_of_embed(
    client: TestClient, runtime: Runtime, fields: dict[str, Any], arguments: dict[str, Any]
) -> None:
    text = LONG if fields.get("truncate") else "the model"
    vectors = np.array(post(client, "/embed", inputs=text, **fields), np.float32)
    assert np.array_equal(vectors, runtime.embed([text], **arguments))


def test_vectors_get_unit_length_unless_told_otherwise(dummy_bundle: Callable[..., Path]) -> None:
    with Runtime(dummy_bundle(normalize=False)) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        vectors = np.array(post(client, "/embed", inputs=TEXTS), np.float32)
        assert np.array_equal(vectors, runtime.embed(TEXTS, normalize=True))
        raw = np.array(post(client, "/embed", inputs=TEXTS, normalize=False), np.float32)
        assert np.array_equal(raw, runtime.embed(TEXTS))


def test_embed_all_gives_a_vector_for_each_token(client: TestClient, runtime: Runtime) -> None:
    answer = post(client, "/embed_all", inputs=TEXTS)
    expected = runtime.encode(TEXTS, task="token_embed")
    assert len(answer) == 2
    for rows, output in zip(answer, expected, strict=True):
        assert np.array_equal(np.array(rows, np.float32), output.data)


def test_similarity_gives_cosines(client: TestClient, runtime: Runtime) -> None:
    inputs = {"source_sentence": "the model", "sentences": TEXTS}
    scores = np.array(post(client, "/similarity", inputs=inputs), np.float32)
    assert np.allclose(scores, runtime.embed(TEXTS) @ runtime.embed("the model"), atol=1e-6)
    parameters = {"prompt_name": "query", "truncate": True}
    prompted = post(client, "/similarity", inputs=inputs, parameters=parameters)
    vectors = runtime.embed(["the model", *TEXTS], prompt_name="query")
    assert np.allclose(prompted, vectors[1:] @ vectors[0], atol=1e-6)


@pytest.fixture(params=["splade", "token_weights"])
def sparse_runtime(
    sparse_bundle: Callable[..., Path], request: pytest.FixtureRequest
) -> Iterator[Runtime]:
    with Runtime(sparse_bundle(request.param)) as runtime:
        yield runtime


def test_embed_sparse_gives_weights_of_tokens(sparse_runtime: Runtime) -> None:
    client = TestClient(create_app([ServedModel.of(sparse_runtime)], ServerConfig()))
    answer = post(client, "/embed_sparse", inputs=TEXTS)
    expected = sparse_runtime.encode(TEXTS, task="sparse")
    weights = [{item["index"]: np.float32(item["value"]) for item in row} for row in answer]
    assert weights == [output.data for output in expected]
    sparse = sparse_runtime.manifest.sparse
    is_splade = sparse is not None and sparse.output == "embedding"
    assert (post(client, "/", inputs=TEXTS) == answer) is is_splade


def like(source: str, *sentences: str) -> dict[str, Any]:
    return {"inputs": {"source_sentence": source, "sentences": list(sentences)}}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/embed", {"inputs": LONG}, 413, "in this API: truncate=true"),
        ("/rerank", {"query": "a", "texts": [LONG]}, 413, "in this API: truncate=true"),
        ("/rerank", {"query": "a", "texts": [LONG]}, 413, "document 0 has at least"),
        ("/similarity", like(LONG, "a"), 413, "source_sentence has at least"),
        ("/similarity", like("a", LONG), 413, "sentence 0 has at least"),
        ("/rerank", {"query": 1, "texts": ["a"]}, 422, "query"),
        ("/rerank", {"query": "a", "texts": []}, 422, "texts"),
        ("/embed_all", {"inputs": [LONG]}, 413, "maximum context length is 64 tokens"),
        ("/embed", {"inputs": ["a", "b", "c"]}, 413, "max_request_inputs=2"),
        ("/embed", {"inputs": []}, 422, "inputs"),
        ("/embed", {"inputs": 7}, 422, "inputs"),
        ("/embed", {"inputs": [1.5]}, 422, "inputs"),
        ("/embed", {}, 422, "inputs"),
        ("/embed", {"inputs": "a", "prompt_name": "nope"}, 422, "'nope'"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "truncation_direction"),
        ("/embed", {"inputs": "a", "dimensions": 99}, 422, "dimensions=99"),
        ("/embed", {"inputs": "a", "model": "nope"}, 404, "'nope' does not exist"),
        ("/embed_sparse", {"inputs": "a"}, 422, "sparse"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 422, "sentences"),
        ("/similarity", {"inputs": "a"}, 422, "inputs"),
        ("/tokenize", {"inputs": []}, 422, "inputs"),
        ("/tokenize", {"inputs": [1]}, 422, "inputs"),
        ("/tokenize", {"inputs": "a", "prompt_name": "nope"}, 422, "'nope'"),
        ("/invocations", {"inputs": LONG}, 413, "in this API: truncate=true"),
        ("/decode", {"ids": [10**6]}, 422, "1000000 is outside"),
        ("/decode", {"ids": ["a"]}, 422, "ids"),
        ("/decode", {"ids": []}, 422, "ids"),
        ("/", {"inputs": LONG}, 413, "maximum context length is 64 tokens"),
    ],
)
def test_errors_have_this_apis_shape(
    runtime: Runtime, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    config = ServerConfig(max_request_inputs=2)
    client = TestClient(create_app([ServedModel.of(runtime)], config))
    response = client.post(path, json=body)
    answer = response.json()
    assert (response.status_code, answer["error_type"]) == (status, "Validation")
    assert words in answer["error"]
    assert set(answer) == {"error", "error_type"}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineError("secret"), 424, "Backend"),
        (OverloadedError("full", retry_after_seconds=3), 429, "Overloaded"),
        (ZeroDivisionError("secret"), 500, "Backend"),
    ],
)
def test_failures_of_ours(
    client: TestClient,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    kind: str,
) -> None:
    async def asubmit(_request: object) -> None:
        raise error

    monkeypatch.setattr(runtime, "asubmit", asubmit)
    response = client.post("/embed", json={"inputs": "a"})
    assert (response.status_code, response.json()["error_type"]) == (status, kind)
    assert "secret" not in response.text
    assert response.headers.get("Retry-After") == ("3" if status == 429 else None)


def test_info_tells_what_this_apis_clients_read(
    dummy_bundle: Callable[..., Path], sparse_bundle: Callable[..., Path]
) -> None:
    limits = RuntimeConfig(max_batch_tokens=256, max_queue_tokens=640, num_tokenizer_threads=3)
    with (
        Runtime(dummy_bundle(), config=limits) as dense,
        Runtime(sparse_bundle("splade")) as splade,
    ):
        models = [ServedModel.of(dense), ServedModel.of(splade)]
        client = TestClient(create_app(models, ServerConfig(max_request_inputs=7)))
        answer = client.get("/info", params={"model": "dummy"}).json()
        splade_answer = client.get("/info", params={"model": "splade"}).json()
    assert splade_answer["model_type"] == {"embedding": {"pooling": "splade"}}
    told = {
        "model_id": "tests/dummy",
        "model_sha": None,
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": 10,
        "max_input_length": 64,
        "max_batch_tokens": 256,
        "max_batch_requests": None,
        "max_client_batch_size": 7,
        "auto_truncate": False,
        "tokenization_workers": 3,
        "version": version("embed-runtime"),
        "sha": None,
        "docker_label": None,
    }
    assert {name: answer[name] for name in told} == told


def test_rerank_knows_this_api_by_its_texts(client: TestClient, runtime: Runtime) -> None:
    texts = ["about words", "the model", "search"]
    scores = runtime.score("the model", texts)
    order = np.argsort(-scores).tolist()
    ranks = post(client, "/rerank", query="the model", texts=texts, raw_scores=True)
    assert [rank["index"] for rank in ranks] == order
    assert np.allclose([rank["score"] for rank in ranks], scores[order], atol=1e-6)
    assert all(set(rank) == {"index", "score"} for rank in ranks)
    named = post(client, "/rerank", query="the model", texts=texts, return_text=True)
    assert [rank["text"] for rank in named] == [texts[index] for index in order]
    others = post(client, "/rerank", query="the model", documents=texts, texts=["ignored"])
    assert [result["index"] for result in others["results"]] == order
    cut = post(client, "/rerank", query="the", texts=[LONG], truncate=True)
    assert np.allclose(cut[0]["score"], runtime.score("the", [LONG]), atol=1e-6)


def test_tokenize_knows_this_api_by_its_inputs(client: TestClient, runtime: Runtime) -> None:
    text = "models, 你好"
    [tokens, short] = post(client, "/tokenize", inputs=[text, "a"])
    assert [token["id"] for token in tokens] == runtime.tokenizer.encode_text(text)
    assert [token["id"] for token in short] == runtime.tokenizer.encode_text("a")
    first, *inner, last = tokens
    assert first == {
        "id": first["id"],
        "text": "[CLS]",
        "special": True,
        "start": None,
        "stop": None,
    }
    assert (last["text"], last["special"]) == ("[SEP]", True)
    assert not any(token["special"] for token in inner)
    assert [token["text"] for token in inner] == ["model", "s", ",", "你", "好"]
    assert [(token["start"], token["stop"]) for token in inner][-1] == (9, 10)
    [bare] = post(client, "/tokenize", inputs=text, add_special_tokens=False)
    assert bare == inner
    [prompted] = post(client, "/tokenize", inputs="the", prompt_name="query")
    assert "".join(token["text"] for token in prompted[1:-1]) == "query:the"
    other = post(client, "/tokenize", prompt=text, inputs="ignored")
    assert other["tokens"] == runtime.tokenizer.encode_text(text)


def test_decode_gives_texts(client: TestClient, runtime: Runtime) -> None:
    ids = runtime.tokenizer.encode_text("the model")
    assert post(client, "/decode", ids=ids) == ["the model"]
    assert post(client, "/decode", ids=[ids, ids[:2]]) == ["the model", "the"]
    with_special = post(client, "/decode", ids=ids, skip_special_tokens=False)
    assert with_special == ["[CLS] the model [SEP]"]


def test_hugging_faces_client(start_server: Any, dummy_bundle: Callable[..., Path]) -> None:
    bundle = dummy_bundle(dimensions=Dimensions(native=32, matryoshka=(8, 32)))
    server = start_server(bundle, "--api-key", "key")
    with Runtime(bundle) as runtime:
        expected = runtime.embed(TEXTS)
        cut = runtime.embed([LONG], prompt_name="query", truncate="START", dimensions=8)
    for url in (server.url, f"{server.url}/embed"):
        client = InferenceClient(model=url, api_key="key")
        assert np.array_equal(client.feature_extraction(TEXTS), expected)
        assert np.array_equal(client.feature_extraction("the model"), expected[:1])
        vectors = client.feature_extraction(
            LONG, truncate=True, truncation_direction="left", prompt_name="query", dimensions=8
        )
        assert np.array_equal(vectors, cut)
        with pytest.raises(HfHubHTTPError, match="413"):
            client.feature_extraction(LONG)
    comparing = InferenceClient(model=f"{server.url}/similarity", api_key="key")
    scores = comparing.sentence_similarity(TEXTS[0], TEXTS)
    assert np.allclose(scores, expected @ expected[0], atol=1e-6)
    assert server.stop() == 0
