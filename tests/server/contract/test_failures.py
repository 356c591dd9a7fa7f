"""The table of failures in the wire contract, row by row, on every endpoint that can have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from embed_runtime import (
    BundleError,
    ClosedError,
    EngineError,
    InputTooLongError,
    NotFiniteError,
    OverloadedError,
    Runtime,
)
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

# A body that succeeds, for each endpoint that takes one.
CONTRACT: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "a"},
    "/pooling": {"input": "a"},
    "/v2/embed": {"texts": ["a"]},
    "/score": {"queries": "a", "documents": "b"},
    "/v1/score": {"queries": "a", "documents": "b"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
    "/invocations": {"input": "a"},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
}
TEI: dict[str, dict[str, Any]] = {
    "/": {"inputs": "a"},
    "/embed": {"inputs": "a"},
    "/embed_all": {"inputs": "a"},
    "/embed_sparse": {"inputs": "a"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/decode": {"ids": [1]},
}
TOKENS = {"/tokenize", "/detokenize", "/decode"}  # no engine, no vectors
LONG = "word " * 100
TOO_LONG: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": LONG},
    "/pooling": {"input": LONG},
    "/v2/embed": {"texts": [LONG], "truncate": "NONE"},
    "/score": {"queries": LONG, "documents": "b"},
    "/v1/score": {"queries": "a", "documents": LONG},
    "/rerank": {"query": LONG, "documents": ["b"]},
    "/v1/rerank": {"query": "a", "documents": [LONG]},
    "/invocations": {"input": LONG},
    "/": {"inputs": LONG},
    "/embed": {"inputs": LONG},
    "/embed_all": {"inputs": LONG},
    "/embed_sparse": {"inputs": LONG},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": [LONG]}},
}

Row = tuple[int, str, str | None]


def check(response: Any, path: str, contract: Row, tei: tuple[int, str]) -> None:
    """Compare an answer with its row, in the words of the path's own dialect."""
    answer = response.json()
    if path in TEI:
        assert set(answer) == {"error", "error_type"}
        assert (response.status_code, answer["error_type"]) == tei, answer
    else:
        error = answer["error"]
        assert list(error) == ["message", "type", "param", "code"]
        assert error["code"] == response.status_code
        assert (response.status_code, error["type"], error["param"]) == contract, answer
    assert response.headers["X-Request-Id"]
    assert "/srv" not in response.text
    assert "Traceback" not in response.text


BODIES = CONTRACT | TEI


@pytest.mark.parametrize("path", BODIES)
def test_the_body_of_the_table_succeeds(able_client: TestClient, path: str) -> None:
    assert able_client.post(path, json=BODIES[path]).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_an_unknown_model(able_client: TestClient, path: str) -> None:
    response = able_client.post(path, json=BODIES[path] | {"model": "nope"})
    check(response, path, (404, "NotFoundError", "model"), (404, "Validation"))


@pytest.mark.parametrize("path", BODIES)
def test_a_missing_field(able_client: TestClient, path: str) -> None:
    response = able_client.post(path, json={})
    param = response.json()["error"]["param"] if path in CONTRACT else None
    assert path in TEI or str(param).startswith("body")
    check(response, path, (400, "Bad Request", param), (422, "Validation"))


@pytest.mark.parametrize("path", BODIES)
def test_malformed_json(able_client: TestClient, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    for content, param in ((b'{"input": x}', "body.10"), (b"", "body.0"), (b"{", "body.1")):
        response = able_client.post(path, content=content, headers=headers)
        check(response, path, (400, "Bad Request", param), (422, "Validation"))


@pytest.mark.parametrize("path", BODIES)
def test_a_wrong_media_type(able_client: TestClient, path: str) -> None:
    for media_type in ("text/plain", "application/x-ndjson", "", "application/*"):
        response = able_client.post(path, content=b"{}", headers={"Content-Type": media_type})
        check(response, path, (400, "Bad Request", None), (422, "Validation"))
        assert "application/json" in response.text


@pytest.mark.parametrize("path", TOO_LONG)
def test_an_overlong_text(able_client: TestClient, path: str) -> None:
    response = able_client.post(path, json=TOO_LONG[path])
    check(response, path, (400, "BadRequestError", "input_tokens"), (413, "Validation"))
    assert "maximum context length is 64 tokens" in response.text


@pytest.mark.parametrize("path", BODIES)
def test_too_large_a_body(able_runtime: Runtime, path: str) -> None:
    config = ServerConfig(max_body_bytes=100)
    client = TestClient(create_app([ServedModel.of(able_runtime)], config))
    response = client.post(path, json=BODIES[path] | {"user": "x" * 100})
    check(response, path, (413, "RequestTooLargeError", None), (413, "Validation"))
    assert "larger than 100 bytes" in response.text


@pytest.mark.parametrize("path", BODIES)
def test_a_missing_key(able_runtime: Runtime, path: str) -> None:
    config = ServerConfig(api_key=("one", "two"))
    client = TestClient(create_app([ServedModel.of(able_runtime)], config))
    for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic one"}):
        response = client.post(path, json=BODIES[path], headers=headers)
        assert (response.status_code, response.content) == (401, b'{"error":"Unauthorized"}')
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for key in ("one", "two"):
        headers = {"Authorization": f"bearer {key}"}
        assert client.post(path, json=BODIES[path], headers=headers).status_code == 200


OURS: list[tuple[Exception, Row, tuple[int, str]]] = [
    (EngineError("/srv/secret"), (500, "InternalServerError", None), (424, "Backend")),
    (NotFiniteError("input 3"), (500, "InternalServerError", None), (424, "Backend")),
    (ZeroDivisionError("/srv/secret"), (500, "InternalServerError", None), (500, "Backend")),
    (ClosedError("/srv/secret"), (503, "ServiceUnavailableError", None), (503, "Unhealthy")),
    (BundleError("/srv/secret"), (503, "ServiceUnavailableError", None), (503, "Unhealthy")),
    (
        OverloadedError("full", retry_after_seconds=3),
        (429, "TooManyRequestsError", None),
        (429, "Overloaded"),
    ),
    (
        InputTooLongError("too long", param="input_tokens"),
        (400, "BadRequestError", "input_tokens"),
        (413, "Validation"),
    ),
]


@pytest.mark.parametrize("path", [path for path in BODIES if path not in TOKENS])
def test_failures_behind_the_endpoint(
    able_client: TestClient, able_runtime: Runtime, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for error, contract, tei in OURS:
        monkeypatch.setattr(able_runtime, "asubmit", failing(error))
        response = able_client.post(path, json=BODIES[path])
        check(response, path, contract, tei)
        assert response.headers.get("Retry-After") == ("3" if contract[0] == 429 else None)


def failing(error: Exception) -> Callable[[object], Any]:
    async def asubmit(_request: object) -> None:
        raise error

    return asubmit


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("chat_template", "{{ messages }}", None),
        ("chat_template_kwargs", {"chat_template": "{{ messages }}"}, None),
        ("continue_final_message", True, None),
        ("mm_processor_kwargs", {"a": 1}, "mm_processor_kwargs"),
        ("media_io_kwargs", {"image": {}}, "media_io_kwargs"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
def test_what_a_conversation_may_not_bring(
    able_client: TestClient, path: str, field: str, value: object, param: str | None
) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], field: value}
    response = able_client.post(path, json=body)
    if field == "continue_final_message":
        assert response.status_code == 200
        response = able_client.post(path, json=body | {"add_generation_prompt": True})
        check(response, path, (400, "Bad Request", "body"), (0, ""))
    else:
        check(response, path, (400, "BadRequestError", param), (0, ""))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"input": LONG, "model": "nope", "dimensions": 99}, 404),
        ({"input": LONG, "dimensions": 8.5, "model": "nope"}, 400),
    ],
)
def test_which_of_two_mistakes_is_told(
    able_client: TestClient, body: dict[str, Any], status: int
) -> None:
    assert able_client.post("/v1/embeddings", json=body).status_code == status


def test_several_models_must_be_named(
    sparse_bundle: Callable[..., Path], able_runtime: Runtime
) -> None:
    with Runtime(sparse_bundle("splade")) as other:
        models = [ServedModel.of(able_runtime), ServedModel.of(other)]
        client = TestClient(create_app(models, ServerConfig()))
        for path, body in BODIES.items():
            response = client.post(path, json=body)
            check(response, path, (400, "BadRequestError", "model"), (422, "Validation"))
