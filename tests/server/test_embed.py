"""`/v2/embed`: Cohere's request and answer for text, and what is refused."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_runtime.errors import InputError
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.protocol.cohere import NO_PROMPT, EmbedResponse, find_prompt_name
from embed_server.served_model import ServedModel

URL = "/v2/embed"
TEXTS = ["the model", "a long text"]
LONG = "word " * 100


def embed(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def floats(answer: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(answer["embeddings"]["float"], np.float32)


def test_answer_has_the_shape_it_documents(client: TestClient, runtime: Runtime) -> None:
    answer = embed(client, texts=TEXTS, model="dummy")
    EmbedResponse.model_validate(answer, strict=True, extra="forbid")
    assert answer["id"].startswith("embd-")
    assert list(answer["embeddings"]) == ["float"]
    assert np.array_equal(floats(answer), runtime.embed(TEXTS))
    assert answer["texts"] == TEXTS
    assert answer["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": 9, "image_tokens": 0},
    }
    assert answer["response_type"] == "embeddings_by_type"
    assert "model" not in answer


def test_every_type_describes_the_same_vector(client: TestClient) -> None:
    types = ["ubinary", "float", "binary", "base64", "float", "int8", "uint8"]
    answer = embed(client, texts=TEXTS, embedding_types=types, output_dimension=16)
    EmbedResponse.model_validate(answer, strict=True, extra="forbid")
    embeddings, vectors = answer["embeddings"], floats(answer)
    assert set(embeddings) == set(types)
    assert vectors.shape == (2, 16)
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in embeddings["base64"]]
    assert np.array_equal(decoded, vectors)
    assert embeddings["ubinary"] == np.packbits(vectors >= 0, axis=1).tolist()
    assert embeddings["binary"] == (np.array(embeddings["ubinary"]) - 128).tolist()
    whole = np.array(embeddings["int8"], np.float32)
    assert np.abs(whole).max(axis=1).tolist() == [127, 127]
    cosines = (whole * vectors).sum(axis=1) / np.linalg.norm(whole, axis=1)
    assert np.all(cosines > 0.9999)
    assert embeddings["uint8"] == (whole + 128).tolist()


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"embedding_types": []}, {}),
        ({"output_dimension": 8}, {"dimensions": 8}),
        ({"input_type": None}, {}),
        ({"input_type": "query"}, {"prompt": "query: "}),
        ({"input_type": "search_query"}, {"prompt": "query: "}),
        ({"input_type": "search_document"}, {"prompt": "document: "}),
        ({"unknown_field": 1, "priority": 5, "model": None}, {}),
    ],
)
def test_fields(
    client: TestClient, runtime: Runtime, fields: dict[str, Any], arguments: dict[str, Any]
) -> None:
    vectors = floats(embed(client, texts=TEXTS, **fields))
    assert np.array_equal(vectors, runtime.embed(TEXTS, **arguments))


def test_inputs_of_text_parts_are_joined_by_lines(client: TestClient, runtime: Runtime) -> None:
    parts = [{"type": "text", "text": "the"}, {"type": "text", "text": "model"}]
    answer = embed(client, inputs=[{"content": parts}, {"content": parts[:1]}])
    assert np.array_equal(floats(answer), runtime.embed(["the\nmodel", "the"]))
    assert "texts" not in answer


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, "word " * 62),
        ({"truncate": "END", "max_tokens": -1}, "word " * 62),
        ({"truncate": "END", "max_tokens": 5}, "word word word"),
        ({"truncate": "START", "max_tokens": 5}, "say say say"),
        ({"truncate": "START"}, "say " * 62),
    ],
)
def test_truncation(
    client: TestClient, runtime: Runtime, fields: dict[str, Any], kept: str
) -> None:
    answer = embed(client, texts=["word " * 80 + "say " * 80], **fields)
    assert np.array_equal(floats(answer), runtime.embed([kept]))


def test_a_limit_above_the_models_refuses_nothing_more(client: TestClient) -> None:
    answer = embed(client, texts=TEXTS, truncate="NONE", max_tokens=10**30)
    assert answer["meta"]["billed_units"]["input_tokens"] == 9


SCHEMA, LATER = "Bad Request", "BadRequestError"
A = {"texts": ["a"]}
TEXT_PART = {"type": "text", "text": "a"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


MISTAKES: list[tuple[Any, str, str | None, str]] = [
    ({}, SCHEMA, "body", "exactly one of"),
    ({"texts": None}, SCHEMA, "body", "exactly one of"),
    ({"texts": []}, SCHEMA, "body", "empty"),
    ({**A, "images": []}, SCHEMA, "body", "texts and images"),
    ({"texts": "a"}, SCHEMA, "body.texts", "array"),
    ({"texts": [1]}, SCHEMA, "body.texts.0", "string"),
    ({"inputs": [{"content": []}]}, SCHEMA, "body.inputs.0.content", "at least 1"),
    ({"inputs": [{"content": [{"type": "text"}]}]}, SCHEMA, "body.inputs.0.content.0", "text"),
    ({"images": ["https://example.com/a.png"]}, LATER, None, "text only"),
    ({"inputs": [{"content": [TEXT_PART, IMAGE_PART]}]}, LATER, None, "text only"),
    ({**A, "embedding_types": ["int4"]}, SCHEMA, "body.embedding_types.0", "ubinary"),
    ({**A, "embedding_types": ["float", "INT8"]}, SCHEMA, "body.embedding_types.1", "ubinary"),
    ({**A, "priority": 2**63}, SCHEMA, "body.priority", "less than"),
    ({**A, "embedding_types": None}, SCHEMA, "body.embedding_types", "array"),
    ({**A, "embedding_types": ["binary"], "output_dimension": 12}, LATER, None, "multiple of 8"),
    ({**A, "output_dimension": 33}, LATER, None, "33"),
    ({**A, "output_dimension": 0}, LATER, None, "1..32"),
    ({**A, "truncate": "end"}, SCHEMA, "body.truncate", "END"),
    ({**A, "max_tokens": 65}, LATER, "truncate_prompt_tokens", "64"),
    ({**A, "max_tokens": 0, "truncate": "NONE"}, LATER, None, "empty"),
    ({**A, "max_tokens": -2}, SCHEMA, "body.max_tokens", "-1"),
    ({"texts": [LONG], "truncate": "NONE"}, LATER, "input_tokens", "maximum context length is 64"),
    ({"texts": ["a b c"], "truncate": "NONE", "max_tokens": 4}, LATER, "input_tokens", "4"),
    ({**A, "input_type": "nope"}, LATER, None, "['document', 'query']"),
    ({**A, "input_type": "classification"}, LATER, None, "classification"),
    ({**A, "model": "nope", "input_type": "nope"}, "NotFoundError", "model", "nope"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "error_type", "param", "words"),
    MISTAKES,
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_mistakes(
    client: TestClient, body: dict[str, Any], error_type: str, param: str | None, words: str
) -> None:
    response = client.post(URL, json=body)
    error = response.json()["error"]
    assert response.status_code == error["code"] == (404 if "model" in body else 400)
    assert (error["type"], error["param"]) == (error_type, param)
    assert words in error["message"]


NOMIC = {"search_query": "q: ", "search_document": "d: ", "clustering": "c: "}
GEMMA = {"query": "q: ", "document": "d: ", "Classification": "cl: "}
JINA = {"retrieval.query": "q: ", "retrieval.passage": "p: ", "separation": ""}


@pytest.mark.parametrize(
    ("input_type", "prompts", "expected"),
    [
        (None, GEMMA, None),
        ("query", GEMMA, "query"),
        ("search_query", GEMMA, "query"),
        ("search_query", NOMIC, "search_query"),
        ("search_document", {"query": "q: ", "passage": "p: "}, "passage"),
        ("search_document", {"query": "q: "}, NO_PROMPT),
        ("search_query", {"passage": "p: "}, NO_PROMPT),
        ("classification", GEMMA, "Classification"),
        ("clustering", NOMIC, "clustering"),
        *((name, {}, NO_PROMPT) for name in ("search_query", "search_document", "classification")),
        *((name, {}, NO_PROMPT) for name in ("clustering", "image")),
        ("clustering", GEMMA, InputError),
        ("search_query", {"s2p_query": "q: "}, InputError),
        ("search_query", JINA, "retrieval.query"),
        ("search_document", JINA, "retrieval.passage"),
        ("clustering", JINA, "separation"),
        ("QUERY", GEMMA, InputError),
        ("query", {}, InputError),
    ],
)
def test_prompt_of_an_input_type(
    input_type: str | None, prompts: dict[str, str], expected: str | type[InputError] | None
) -> None:
    if expected is InputError:
        with pytest.raises(InputError, match=f"'{input_type}'"):
            find_prompt_name(input_type, prompts)
    else:
        assert find_prompt_name(input_type, prompts) == expected


def test_standard_names_mean_no_prefix_where_there_are_no_prompts(
    dummy_bundle: Callable[..., Path],
) -> None:
    with Runtime(dummy_bundle(prompts={})) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        answer = embed(client, texts=TEXTS, input_type="search_query")
        assert np.array_equal(floats(answer), runtime.embed(TEXTS))


def test_the_models_default_prompt_holds_where_no_type_is_named(
    dummy_bundle: Callable[..., Path],
) -> None:
    with Runtime(dummy_bundle(prompts={"query": "query: "}, default_prompt="query")) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        plain = runtime.embed(TEXTS, prompt="")
        prompted = runtime.embed(TEXTS)
        assert not np.array_equal(plain, prompted)
        assert np.array_equal(floats(embed(client, texts=TEXTS)), prompted)
        answer = embed(client, texts=TEXTS, input_type="search_document")
        assert np.array_equal(floats(answer), plain)
