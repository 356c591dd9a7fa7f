"""Everything that is not an embedding: models, health, info, metrics, documentation, failures."""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from embed_runtime import (
    ClosedError,
    EmbedRequest,
    EmbedResult,
    EngineError,
    OverloadedError,
    Runtime,
)
from embed_server.app import create_app
from embed_server.chat import ChatRenderer
from embed_server.chat_worker import Task
from embed_server.config import ServerConfig
from embed_server.protocol.models import ModelList
from embed_server.served_model import ServedModel, default_names


def failing(error: Exception) -> Callable[[EmbedRequest], Any]:
    async def asubmit(request: EmbedRequest) -> EmbedResult:
        raise error

    return asubmit


def read_metrics(client: TestClient) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_models_lists_every_name(runtime: Runtime) -> None:
    client = TestClient(create_app([ServedModel.of(runtime, ("first", "second"))], ServerConfig()))
    answer = client.get("/v1/models").json()
    ModelList.model_validate(answer, strict=True, extra="forbid")
    assert [card["id"] for card in answer["data"]] == ["first", "second"]
    card = answer["data"][0]
    assert (card["root"], card["max_model_len"], card["dimensions"]) == ("tests/dummy", 64, 32)
    body = {"input": "x", "model": "second"}
    assert client.post("/v1/embeddings", json=body).json()["model"] == "first"
    body = {"input": "x", "model": "tests/dummy"}
    assert client.post("/v1/embeddings", json=body).status_code == 404


@pytest.mark.parametrize(
    ("folder", "model_id", "names"),
    [
        ("engines/model", "owner/model", ("model", "owner/model")),
        ("engines/mine", "owner/model", ("mine", "model", "owner/model")),
        ("engines/model", "model", ("model",)),
    ],
)
def test_default_names(folder: str, model_id: str, names: tuple[str, ...]) -> None:
    assert default_names(Path(folder), model_id) == names


def test_version_is_the_installed_one(client: TestClient) -> None:
    assert client.get("/version").json() == {"version": version("embed-runtime")}


def test_load_counts_requests_that_wait(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    async def asubmit(request: EmbedRequest) -> EmbedResult:
        seen.append(client.get("/load").json())
        raise EngineError("enough")

    monkeypatch.setattr(runtime, "asubmit", asubmit)
    client.post("/v1/embeddings", json={"input": "x"})
    assert [*seen, client.get("/load").json()] == [{"server_load": 1}, {"server_load": 0}]


def test_info_shows_manifest_engine_and_certificate(client: TestClient) -> None:
    answer = client.get("/info").json()
    assert answer["model_names"] == ["dummy", "tests/dummy"]
    assert answer["engine"]["backend"] == "dummy"
    assert answer["manifest"]["dimensions"]["native"] == 32
    assert (answer["certificate"], answer["skipped_engines"]) == (None, [])


def test_health_follows_the_engine(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (client.get("/health").status_code, client.get("/health").content) == (200, b"")
    assert client.head("/health").status_code == 200
    assert (client.get("/ping").status_code, client.post("/ping").status_code) == (200, 200)
    body = {"input": "x"}
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "asubmit", failing(EngineError("out of memory at 0x1234")))
        assert client.get("/health").status_code == 200
        assert client.post("/v1/embeddings", json=body).status_code == 500
        assert client.get("/health").status_code == client.post("/ping").status_code == 503
        patch.setattr(runtime, "asubmit", failing(OverloadedError("full")))
        assert client.get("/health").status_code == 200
        patch.setattr(runtime, "asubmit", failing(EngineError("still")))
        assert client.get("/health").status_code == 503
    assert client.get("/health").status_code == 200
    runtime.close()
    assert client.post("/v1/embeddings", json=body).status_code == 503
    assert client.get("/health").status_code == 503


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (EngineError("/secret/path failed"), 500, "InternalServerError"),
        (ZeroDivisionError("/secret/path"), 500, "InternalServerError"),
        (ClosedError("closed /secret/path"), 503, "ServiceUnavailableError"),
        (OverloadedError("full", retry_after_seconds=3), 429, "TooManyRequestsError"),
    ],
)
def test_failures_of_ours(
    client: TestClient,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    error_type: str,
) -> None:
    monkeypatch.setattr(runtime, "asubmit", failing(error))
    response = client.post(
        "/v1/embeddings", json={"input": "x"}, headers={"X-Request-Id": "trace-me"}
    )
    answer = response.json()["error"]
    assert response.status_code == status
    assert (answer["type"], answer["param"], answer["code"]) == (error_type, None, status)
    assert "secret" not in response.text
    assert response.headers["X-Request-Id"] == "trace-me"
    logged = status >= 500
    assert ("trace-me" in caplog.text and "secret" in caplog.text) is logged
    assert response.headers.get("Retry-After") == ("3" if status == 429 else None)


def test_where_one_side_fails_the_others_work_is_dropped(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[object] = []

    async def asubmit(request: EmbedRequest) -> EmbedResult:
        if request.inputs == ["the query"]:
            raise EngineError("out of memory")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            dropped.append(request.inputs)
        raise AssertionError

    monkeypatch.setattr(runtime, "asubmit", asubmit)
    body = {"query": "the query", "documents": ["a", "b"]}
    assert client.post("/rerank", json=body).status_code == 500
    assert dropped == [["a", "b"]]


def test_metrics_count_requests_tokens_and_batches(client: TestClient) -> None:
    client.post("/v1/embeddings", json={"input": ["the model", "a"]})
    client.post("/v1/embeddings", json={"input": []})
    client.post("/v2/embed", json={"texts": ["the model"]})
    client.get("/no/such/path")
    samples = read_metrics(client)
    assert samples["embed_requests_total", "/v1/embeddings", "200"] == 1
    assert samples["embed_requests_total", "/v1/embeddings", "400"] == 1
    assert samples["embed_requests_total", "/v2/embed", "200"] == 1
    assert samples["embed_requests_total", "other", "404"] == 1
    assert samples["embed_request_seconds_count", "/v1/embeddings"] == 2
    assert samples["embed_request_inputs_sum", "dummy"] == 3
    assert samples["embed_request_tokens_sum", "dummy"] == 4 + 3 + 4
    assert samples["embed_batches_total", "dummy"] == 2
    assert samples["embed_batch_rows_total", "dummy"] == 3
    assert samples["embed_batch_tokens_total", "dummy"] == 11
    assert samples["embed_attention_slots_total", "dummy"] == 12
    assert samples["embed_padding_share", "dummy"] == pytest.approx(1 / 12)
    assert samples["embed_queue_inputs", "dummy"] == samples["embed_queue_tokens", "dummy"] == 0
    assert samples["embed_engine_seconds_total", "dummy"] > 0
    assert samples["embed_model_info", "cpu", "dummy", "dummy", "fp32"] == 1


def test_metrics_count_both_sides_of_a_score_as_one_request(client: TestClient) -> None:
    answer = client.post("/rerank", json={"query": "the model", "documents": ["a", "the"]})
    samples = read_metrics(client)
    for name, total in ("inputs", 3), ("tokens", answer.json()["usage"]["total_tokens"]):
        assert samples[f"embed_request_{name}_count", "dummy"] == 1
        assert samples[f"embed_request_{name}_sum", "dummy"] == total


def test_metrics_speak_openmetrics_when_asked(client: TestClient) -> None:
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_openapi_page_documents_bodies_answers_and_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, request, response in (
        ("/v1/embeddings", "EmbeddingsRequest", "EmbeddingsResponse"),
        ("/v2/embed", "EmbedBody", "EmbedResponse"),
    ):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert body["$ref"].endswith(f"/{request}")
        assert answer["$ref"].endswith(f"/{response}")
        assert set(operation["responses"]) == {
            "200", "400", "401", "404", "413", "429", "499", "500", "503", "504",
        }  # fmt: skip
    assert {"/health", "/info", "/metrics", "/v1/models"} < set(document["paths"])
    assert client.get("/docs").status_code == 200


def test_unknown_paths_and_verbs_keep_the_frameworks_answers(client: TestClient) -> None:
    assert client.get("/nothing").json() == {"detail": "Not Found"}
    response = client.get("/v1/embeddings")
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize(
    ("last_message", "is_asked"),
    [
        ({"type": "http.request", "body": b'"x"}', "more_body": False}, True),
        ({"type": "http.disconnect"}, False),
    ],
)
def test_a_client_that_leaves_cancels_its_work(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    last_message: dict[str, Any],
    is_asked: bool,
) -> None:
    events: list[str] = []

    async def never(request: EmbedRequest) -> EmbedResult:
        events.append("asked")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            events.append("cancelled")
        raise AssertionError

    monkeypatch.setattr(runtime, "asubmit", never)
    app = create_app([ServedModel.of(runtime)], ServerConfig())
    first_message = {"type": "http.request", "body": b'{"input": ', "more_body": True}
    send_and_leave(app, "/v1/embeddings", first_message, last_message)
    assert events == (["asked", "cancelled"] if is_asked else [])
    assert read_metrics(TestClient(app))["embed_requests_total", "/v1/embeddings", "499"] == 1


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling", "/tokenize"])
def test_nothing_is_rendered_for_a_client_that_left(
    dummy_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    events: list[str] = []

    async def never(_renderer: ChatRenderer, _task: Task) -> list[str]:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            events.append("cancelled")
        raise AssertionError

    monkeypatch.setattr(ChatRenderer, "render", never)
    with Runtime(dummy_bundle(template="{{ messages[0].content }}")) as runtime:
        app = create_app([ServedModel.of(runtime)], ServerConfig())
        body = b'{"messages": [{"role": "user", "content": "a"}]}'
        send_and_leave(app, path, {"type": "http.request", "body": body, "more_body": False})
        assert events == ["cancelled"]
        assert read_metrics(TestClient(app))["embed_requests_total", path, "499"] == 1


def test_nothing_is_shortened_for_a_client_that_left(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio, "to_thread", never)
    app = create_app([ServedModel.of(runtime)], ServerConfig())
    body = b'{"query": "a", "documents": ["b"], "max_tokens_per_doc": 3}'
    send_and_leave(app, "/rerank", {"type": "http.request", "body": body, "more_body": False})
    assert read_metrics(TestClient(app))["embed_requests_total", "/rerank", "499"] == 1


def send_and_leave(app: FastAPI, path: str, *sent: dict[str, Any]) -> None:
    """Send a body in parts, and close the connection at once."""
    messages = iter([*sent, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), timeout=10))
