"""`/score` and `/rerank`: the runtime's own scores, in the contract's shapes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.protocol.score import RerankResponse, ScoreResponse
from embed_server.served_model import ServedModel

QUERY, DOCUMENTS = "the model", ["a long text", "the model", "find a place to play"]
LONG = "word " * 80
SCORES = ["/score", "/v1/score"]
RANKS = ["/rerank", "/v1/rerank", "/v2/rerank"]


def post(client: TestClient, url: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(url, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def scores_of(answer: dict[str, Any]) -> list[float]:
    return [item["score"] for item in answer["data"]]


@pytest.mark.parametrize("url", SCORES)
def test_score_has_the_shape_it_documents(client: TestClient, runtime: Runtime, url: str) -> None:
    answer = post(client, url, {"queries": QUERY, "documents": DOCUMENTS, "model": "dummy"})
    ScoreResponse.model_validate(answer, strict=True, extra="forbid")
    assert np.allclose(scores_of(answer), runtime.score(QUERY, DOCUMENTS), atol=1e-7)
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert answer["id"].startswith("score-")
    # The query counts once: 2 words and its prompt, then 3 documents with theirs.
    num_tokens = sum(len(runtime.tokenizer.encode_text("document: " + one)) for one in DOCUMENTS)
    num_tokens += len(runtime.tokenizer.encode_text("query: " + QUERY))
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == num_tokens
    assert len(answer["usage"]) == 5


@pytest.mark.parametrize(
    "names",
    [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")],
)
@pytest.mark.parametrize(
    ("left", "right", "queries", "documents"),
    [
        (QUERY, DOCUMENTS[0], [QUERY], DOCUMENTS[:1]),
        ([QUERY], DOCUMENTS, [QUERY], DOCUMENTS),
        (DOCUMENTS, DOCUMENTS[::-1], DOCUMENTS, DOCUMENTS[::-1]),
        ({"text": QUERY}, [{"text": DOCUMENTS[0]}], [QUERY], DOCUMENTS[:1]),
        ({"content": [{"type": "text", "text": QUERY}]}, DOCUMENTS, [QUERY], DOCUMENTS),
    ],
)
def test_spellings_and_pairs(
    client: TestClient,
    runtime: Runtime,
    names: tuple[str, str],
    left: object,
    right: object,
    queries: list[str],
    documents: list[str],
) -> None:
    answer = post(client, "/score", {names[0]: left, names[1]: right})
    assert np.allclose(scores_of(answer), runtime.score(queries, documents), atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "query", "document"),
    [
        ({}, "query: the model", "document: a long text"),
        ({"query_prompt_name": "document"}, "document: the model", "document: a long text"),
        ({"document_prompt_name": "query"}, "query: the model", "query: a long text"),
        ({"max_tokens_per_query": 1}, "query: the", "document: a long text"),
        ({"max_tokens_per_doc": 2}, "query: the model", "document: a long"),
        ({"truncate_prompt_tokens": 5}, "query: the", "document: a"),
        ({"truncate_prompt_tokens": 5, "truncation_side": "left"}, "query: model",
         "document: text"),
        ({"use_activation": False, "user": "x", "priority": -3, "instruction": "find"},
         "query: the model", "document: a long text"),
    ],
)  # fmt: skip
def test_fields(
    client: TestClient, runtime: Runtime, fields: dict[str, Any], query: str, document: str
) -> None:
    left, right = runtime.embed([query, document])
    answer = post(client, "/score", {"queries": QUERY, "documents": DOCUMENTS[0]} | fields)
    assert scores_of(answer) == [pytest.approx(float(left @ right), abs=1e-6)]


def test_vectors_of_tokens_are_compared_by_their_best_matches(
    client: TestClient, runtime: Runtime
) -> None:
    body = {"queries": QUERY, "documents": DOCUMENTS, "task": "token_embed"}
    query, *documents = (
        output.data
        for output in runtime.encode(
            ["query: " + QUERY, *("document: " + one for one in DOCUMENTS)],
            task="token_embed",
            normalize=True,
        )
    )
    expected = [(query @ one.T).max(axis=1).sum() for one in documents]
    assert np.allclose(scores_of(post(client, "/score", body)), expected, atol=1e-5)


def test_vllm_has_no_prompts_on_either_side(runtime: Runtime) -> None:
    client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(compat="vllm")))
    left, right = runtime.embed([QUERY, DOCUMENTS[0]], prompt="")
    answer = post(client, "/score", {"queries": QUERY, "documents": DOCUMENTS[0]})
    assert scores_of(answer) == [pytest.approx(float(left @ right), abs=1e-6)]


@pytest.mark.parametrize("measure", ["dot", "euclidean"])
def test_the_models_own_measure_ranks(dummy_bundle: Callable[..., Path], measure: str) -> None:
    with Runtime(dummy_bundle("other", similarity=measure, normalize=False)) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        answer = post(client, "/score", {"queries": QUERY, "documents": DOCUMENTS})
        assert np.allclose(scores_of(answer), runtime.score(QUERY, DOCUMENTS), rtol=1e-6)


@pytest.mark.parametrize("url", RANKS)
def test_rerank_has_the_shape_it_documents(client: TestClient, runtime: Runtime, url: str) -> None:
    body = {"query": QUERY, "documents": [*DOCUMENTS, {"text": DOCUMENTS[0]}]}
    answer = post(client, url, body)
    RerankResponse.model_validate(answer, strict=True, extra="forbid")
    assert set(answer) == {"id", "model", "usage", "results"}
    assert set(answer["usage"]) == {"prompt_tokens", "total_tokens"}
    texts = [*DOCUMENTS, DOCUMENTS[0]]
    expected = runtime.score(QUERY, texts)
    order = [item["index"] for item in answer["results"]]
    assert order == np.argsort(-expected, kind="stable").tolist()
    for item in answer["results"]:
        assert item["relevance_score"] == pytest.approx(float(expected[item["index"]]), abs=1e-6)
        assert item["document"] == {"text": texts[item["index"]], "multi_modal": None}


@pytest.mark.parametrize(("top_n", "num_results"), [(None, 3), (0, 3), (2, 2), (10, 3)])
def test_top_n_keeps_the_best(client: TestClient, top_n: int | None, num_results: int) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "top_n": top_n, "return_documents": False}
    results = post(client, "/rerank", body)["results"]
    assert len(results) == num_results
    scores = [item["relevance_score"] for item in results]
    assert scores == sorted(scores, reverse=True)
    assert "document" not in results[0]


def test_only_coheres_path_cuts_long_documents(client: TestClient, runtime: Runtime) -> None:
    body = {"query": QUERY, "documents": [LONG]}
    for url in ("/rerank", "/v1/rerank"):
        refused = client.post(url, json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input_tokens"
    answer = post(client, "/v2/rerank", body)
    expected = float(runtime.score(QUERY, [LONG])[0])
    assert answer["results"][0]["relevance_score"] == pytest.approx(expected, abs=1e-6)


SCHEMA, LATER = "Bad Request", "BadRequestError"
PAIR = {"queries": "a", "documents": "b"}
IMAGE = {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}


@pytest.mark.parametrize(
    ("body", "error_type", "param", "words"),
    [
        ({}, SCHEMA, "body.queries", "text_1 and text_2"),
        ({"queries": "a", "data_2": "b"}, SCHEMA, "body.queries", "two sides"),
        ({"queries": [], "documents": "b"}, SCHEMA, "body.queries", "at least 1"),
        ({"queries": "a", "documents": 5}, SCHEMA, "body.documents.0.str", "string"),
        ({"queries": "a", "documents": {}}, SCHEMA, "body.documents.0.str", "either text"),
        ({"queries": ["a", "b"], "documents": ["a", "b", "c"]}, LATER, None, "2 queries and 3"),
        ({"queries": ["a", "b"], "documents": "c"}, LATER, None, "2 queries and 1"),
        ({"queries": "a", "documents": IMAGE}, LATER, None, "text only"),
        ({**PAIR, "queries": LONG}, LATER, "input_tokens", "truncate_prompt_tokens=-1"),
        ({**PAIR, "queries": LONG}, LATER, "input_tokens", "query 0 has at least"),
        ({**PAIR, "documents": ["b", LONG]}, LATER, "input_tokens", "document 1 has at least"),
        ({**PAIR, "max_tokens_per_doc": 64}, LATER, None, "max_tokens_per_doc=64"),
        ({**PAIR, "max_tokens_per_query": -1}, SCHEMA, "body.max_tokens_per_query", "-1"),
        ({**PAIR, "query_prompt_name": "nope"}, LATER, "prompt_name", "nope"),
        ({**PAIR, "normalize": True}, LATER, "normalize", "use_activation"),
        ({**PAIR, "mm_processor_kwargs": {"a": 1}}, LATER, "mm_processor_kwargs", "text only"),
    ],
)
def test_mistakes(
    client: TestClient, body: dict[str, Any], error_type: str, param: str | None, words: str
) -> None:
    response = client.post("/score", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, error_type, param)
    assert words in error["message"]


def test_an_unknown_model_comes_first(client: TestClient) -> None:
    for url, body in (("/score", PAIR), ("/rerank", {"query": "a", "documents": ["b"]})):
        response = client.post(url, json=body | {"model": "nope"})
        assert response.status_code == 404


def test_both_sides_count_for_the_limit_of_inputs(runtime: Runtime) -> None:
    client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(max_request_inputs=3)))
    body = {"query": QUERY, "documents": DOCUMENTS}
    response = client.post("/rerank", json=body)
    assert response.status_code == 413
    assert "4 inputs" in response.json()["error"]["message"]
