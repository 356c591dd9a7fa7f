"""Limits of a request: how many, how large, how long; and a queue that is full."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import EmbedRequest, EmbedResult, OverloadedError, Runtime, RuntimeConfig
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.scheduler import Scheduler
from embed_runtime.tokenizer import Tokenizer
from embed_server.app import create_app
from embed_server.chat import ChatRenderer
from embed_server.config import ServerConfig
from embed_server.deadline import Deadline
from embed_server.served_model import ServedModel

HELLO = {"role": "user", "content": "the model"}
MakeClient = Callable[..., TestClient]


@pytest.fixture
def limited_client(dummy_bundle: Callable[..., Path]) -> Iterator[MakeClient]:
    """Serve a dummy bundle under limits: those of the server, and `runtime` for the others."""
    runtimes: list[Runtime] = []

    def make(*, runtime: RuntimeConfig | None = None, **limits: Any) -> TestClient:
        bundle = dummy_bundle(template="{{ messages[0].content }}")
        runtimes.append(Runtime(bundle, config=runtime))
        return TestClient(create_app([ServedModel.of(runtimes[-1])], ServerConfig(**limits)))

    yield make
    for one in runtimes:
        one.close()


def error_of(response: Any) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == response.status_code
    return error


def test_too_many_inputs(limited_client: MakeClient) -> None:
    client = limited_client(max_request_inputs=2)
    assert client.post("/v1/embeddings", json={"input": ["a", "b"]}).status_code == 200
    for path, body in (
        ("/v1/embeddings", {"input": ["a", "b", "c"]}),
        ("/v2/embed", {"texts": ["a", "b", "c"]}),
    ):
        error = error_of(client.post(path, json=body))
        assert (error["code"], error["type"]) == (413, "RequestTooLargeError")
        assert "3 inputs, and max_request_inputs=2" in error["message"]
        assert "--max-request-inputs" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "documents": ["b"] * 2, "max_tokens_per_doc": 2}),
        ("/rerank", {"query": "a", "documents": ["b"] * 2, "max_tokens_per_query": 2}),
        ("/v1/embeddings", {"messages": [[HELLO]] * 3}),
        ("/pooling", {"messages": [[HELLO]] * 3}),
    ],
)
def test_nothing_is_done_for_too_many_inputs(
    limited_client: MakeClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Tokenizer, "shorten", fail)
    monkeypatch.setattr(ChatRenderer, "render", fail)
    client = limited_client(max_request_inputs=2)
    error = error_of(client.post(path, json=body))
    assert (error["code"], error["type"]) == (413, "RequestTooLargeError")
    assert "3 inputs, and max_request_inputs=2" in error["message"]


def test_by_default_one_request_may_have_as_many_inputs_as_the_readme_says(
    limited_client: MakeClient,
) -> None:
    most = 16384
    client = limited_client()
    body = {"input": [[5]] * most, "encoding_format": "bytes_only"}
    assert client.post("/v1/embeddings", json=body).status_code == 200
    body["input"] = [[5]] * (most + 1)
    error = error_of(client.post("/v1/embeddings", json=body))
    assert (error["code"], error["type"]) == (413, "RequestTooLargeError")
    assert f"{most + 1} inputs, and max_request_inputs={most};" in error["message"]


def test_too_many_tokens(limited_client: MakeClient) -> None:
    client = limited_client(runtime=RuntimeConfig(max_request_tokens=8))
    assert client.post("/v1/embeddings", json={"input": ["a the", "a the"]}).status_code == 200
    error = error_of(client.post("/v1/embeddings", json={"input": ["a the", "a the of"]}))
    assert (error["code"], error["type"]) == (413, "RequestTooLargeError")
    assert "9 tokens, and max_request_tokens=8" in error["message"]


def test_a_request_that_takes_too_long_is_dropped(
    limited_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    async def never(_runtime: Runtime, _request: EmbedRequest) -> EmbedResult:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            events.append("cancelled")
        raise AssertionError

    monkeypatch.setattr(Runtime, "asubmit", never)
    client = limited_client(max_request_seconds=0.01)
    response = client.post("/v1/embeddings", json={"input": "a"})
    error = error_of(response)
    assert (error["code"], error["type"]) == (504, "GatewayTimeoutError")
    assert "max_request_seconds=0.01;" in error["message"]
    assert events == ["cancelled"]
    assert client.get("/load").json() == {"server_load": 0}


def test_a_body_that_does_not_come_in_time_is_given_up(runtime: Runtime) -> None:
    app = create_app([ServedModel.of(runtime)], ServerConfig(max_request_seconds=0.01))
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), timeout=10))
    assert [message.get("status") for message in sent] == [504, None]


def test_an_answer_that_has_begun_may_take_its_time() -> None:
    async def slow_app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        loop = asyncio.get_running_loop()
        later = loop.create_future()
        loop.call_later(0.05, later.set_result, None)
        await later
        await send({"type": "http.response.body", "body": b"done"})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        raise AssertionError

    asyncio.run(Deadline(slow_app, seconds=0.01)({"type": "http"}, receive, send))
    assert sent == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("compat", [None, "vllm"])
@pytest.mark.parametrize("inputs", ["a", ["a"], ["a", "b", "c"]])
def test_a_full_queue_answers_one_input_like_many(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, inputs: object, compat: Any
) -> None:
    client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(compat=compat)))

    def has_no_space(_scheduler: Scheduler, _num_tokens: int) -> bool:
        return False

    monkeypatch.setattr(Scheduler, "_has_space", has_no_space)
    response = client.post("/v1/embeddings", json={"input": inputs})
    error = error_of(response)
    expected = (503, "Service Unavailable") if compat else (429, "TooManyRequestsError")
    assert (error["code"], error["type"]) == expected
    assert int(response.headers["Retry-After"]) >= 1
    assert "the queue is full" in error["message"]


PAIRS = [
    ("/score", {"queries": ["a", "the"], "documents": ["of", "to"]}),
    ("/rerank", {"query": "a", "documents": ["of", "to"]}),
]


@pytest.mark.parametrize(("path", "body"), PAIRS)
def test_a_side_that_its_sibling_left_no_space_comes_after_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    expected = client.post(path, json=body).json()
    asubmit = Runtime.asubmit
    taken: list[EmbedRequest] = []

    async def take_one(runtime: Runtime, request: EmbedRequest) -> EmbedResult:
        if taken:
            raise OverloadedError("the queue is full")
        taken.append(request)
        try:
            await asyncio.sleep(0)  # the sibling comes
            return await asubmit(runtime, request)
        finally:
            taken.remove(request)

    monkeypatch.setattr(Runtime, "asubmit", take_one)
    response = client.post(path, json=body)
    assert response.status_code == 200
    assert response.json() | {"id": "", "created": 0} == expected | {"id": "", "created": 0}


@pytest.mark.parametrize(
    ("full_for", "tries"),
    [(["document"], ["document", "document"]), (["query", "document"], ["query", "document"])],
)
def test_a_queue_full_of_others_is_still_said(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, full_for: list[str], tries: list[str]
) -> None:
    asubmit = Runtime.asubmit
    refused: list[object] = []

    async def refuse(runtime: Runtime, request: EmbedRequest) -> EmbedResult:
        if request.prompt_name in full_for:
            refused.append(request.prompt_name)
            raise OverloadedError("the queue is full", retry_after_seconds=7)
        return await asubmit(runtime, request)

    monkeypatch.setattr(Runtime, "asubmit", refuse)
    response = client.post("/rerank", json={"query": "a", "documents": ["of", "to"]})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert refused == tries


def test_a_vector_that_is_not_finite_is_an_error_that_names_its_input(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = DummyEngine.run

    def run_badly(engine: DummyEngine, batch: Any) -> Any:
        outputs = {name: values.copy() for name, values in run(engine, batch).items()}
        longest = int(batch.lengths.argmax())
        outputs["embedding"][longest, 3] = np.nan
        return outputs

    monkeypatch.setattr(DummyEngine, "run", run_badly)
    for path, body in (
        ("/v1/embeddings", {"input": ["a", "a the of"], "encoding_format": "base64"}),
        ("/v2/embed", {"texts": ["a", "a the of"], "embedding_types": ["ubinary"]}),
    ):
        error = error_of(client.post(path, json=body))
        assert (error["code"], error["type"]) == (500, "InternalServerError")
        assert "not finite for input 1" in error["message"]
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 500


@pytest.mark.parametrize(("compat", "prompt"), [(None, "query: "), ("vllm", "")])
def test_strict_servers_know_of_no_default_prompt(
    dummy_bundle: Callable[..., Path], compat: Any, prompt: str
) -> None:
    with Runtime(dummy_bundle(default_prompt="query")) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(compat=compat)))
        for fields, used in (({}, prompt), ({"prompt_name": "document"}, "document: ")):
            answer = client.post("/v1/embeddings", json={"input": "the", **fields}).json()
            vector = np.array(answer["data"][0]["embedding"], np.float32)
            assert np.array_equal(vector, runtime.embed("the", prompt=used))
