"""A real `embed-serve`: official clients, a thousand callers, leaving clients, a clean end."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohere import ClientV2
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from embed_runtime import Runtime
from embed_runtime.types import FloatArray

TEXTS = ["the model", "a long text about words", "", "the model"]
SLOW = {"input": [9, 9, 9]}

DummyBundle = Callable[..., Path]


@pytest.fixture
def bundle(dummy_bundle: DummyBundle) -> Path:
    return dummy_bundle()


def runtime_vectors(bundle: Path, texts: list[str], **options: Any) -> FloatArray:
    with Runtime(bundle) as runtime:
        return runtime.embed(texts, **options)


def test_official_clients_get_the_runtimes_vectors(start_server: Any, bundle: Path) -> None:
    server = start_server(bundle, "--api-key", "key")
    expected = runtime_vectors(bundle, TEXTS)
    assert server.ready_line == (
        f"embed-runtime: serving dummy (dummy, fp32, 32 dimensions) on {server.url}"
    )
    with OpenAI(base_url=f"{server.url}/v1", api_key="key") as client:
        assert [model.id for model in client.models.list()] == ["dummy", "tests/dummy"]
        answer = client.embeddings.create(model="dummy", input=TEXTS)
        assert np.array_equal(np.array([e.embedding for e in answer.data], np.float32), expected)
        assert (answer.model, answer.usage.prompt_tokens) == ("dummy", 18)
        floats = client.embeddings.create(model="dummy", input=TEXTS, encoding_format="float")
        assert np.array_equal(np.array([e.embedding for e in floats.data], np.float32), expected)
        with pytest.raises(BadRequestError) as bad:
            client.embeddings.create(model="dummy", input="word " * 100)
        assert (bad.value.param, bad.value.type) == ("input_tokens", "BadRequestError")
        with pytest.raises(NotFoundError):
            client.embeddings.create(model="nope", input="a")

    async def embed_async() -> FloatArray:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="key") as client:
            answer = await client.embeddings.create(model="dummy", input=TEXTS, dimensions=8)
            return np.array([item.embedding for item in answer.data], np.float32)

    assert np.array_equal(asyncio.run(embed_async()), runtime_vectors(bundle, TEXTS, dimensions=8))

    with ClientV2(base_url=server.url, api_key="key") as client:
        answer = client.embed(
            model="dummy",
            texts=TEXTS,
            input_type="search_query",
            embedding_types=["float", "ubinary"],
        )
    prompted = runtime_vectors(bundle, TEXTS, prompt_name="query")
    assert np.array_equal(np.array(answer.embeddings.float_, np.float32), prompted)
    assert answer.embeddings.ubinary == np.packbits(prompted >= 0, axis=1).tolist()
    assert server.stop() == 0


async def post(port: int, body: object) -> tuple[int, Any]:
    """Send one request over a connection of its own, and return status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw_post(body))
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def raw_post(body: object) -> bytes:
    content = json.dumps(body).encode()
    return (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    )


def test_a_thousand_callers_at_once_all_get_their_own_vector(
    start_server: Any, bundle: Path
) -> None:
    server = start_server(bundle)
    texts = [f"text {number} of many" for number in range(1000)]
    # Every tenth makes a mistake, which must not touch its neighbours.
    bodies = [
        {"input": [text, "word " * 100] if number % 10 == 0 else text}
        for number, text in enumerate(texts)
    ]

    async def ask_all() -> list[tuple[int, Any]]:
        return await asyncio.gather(*(post(server.port, body) for body in bodies))

    answers = asyncio.run(ask_all())
    expected = runtime_vectors(bundle, texts)
    for number, (status, answer) in enumerate(answers):
        if number % 10 == 0:
            assert (status, answer["error"]["param"]) == (400, "input_tokens")
        else:
            assert status == 200
            vector = np.array(answer["data"][0]["embedding"], np.float32)
            assert np.array_equal(vector, expected[number])
    assert server.stop() == 0


def read_metric(port: int, name: str) -> float:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = connection.makefile().read()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def open_gate(gate: Path) -> Callable[[], None]:
    """Wait until the engine stands at the gate, and return what lets it through."""
    descriptor = os.open(gate, os.O_WRONLY)  # blocks until the engine opens the other end
    return lambda: os.close(descriptor)


def test_work_of_a_client_that_left_is_dropped(
    start_server: Any, bundle: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = start_server(bundle, gate=gate)
    with socket.create_connection(("127.0.0.1", server.port)) as first:
        first.sendall(raw_post(SLOW))
        let_through = open_gate(gate)
        with socket.create_connection(("127.0.0.1", server.port)) as second:
            second.sendall(raw_post({"input": ["a", "b"]}))
            while read_metric(server.port, "embed_queue_inputs") != 2:
                pass
        while read_metric(server.port, "embed_queue_inputs") != 0:
            pass
        let_through()
        assert first.makefile().readline().split()[1] == "200"
    left = 'embed_requests_total{route="/v1/embeddings",status="499"}'
    assert read_metric(server.port, left) == 1
    assert read_metric(server.port, "embed_batch_rows_total") == 1
    assert server.stop() == 0


def test_sigterm_finishes_what_was_accepted(
    start_server: Any, bundle: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = start_server(bundle, gate=gate)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as running,
        socket.create_connection(("127.0.0.1", server.port)) as waiting,
        socket.create_connection(("127.0.0.1", server.port)) as idle,
    ):
        running.sendall(raw_post(SLOW))
        let_through = open_gate(gate)
        waiting.sendall(raw_post({"input": "a"}))
        while read_metric(server.port, "embed_queue_inputs") != 1:
            pass
        server.process.terminate()
        assert idle.recv(1) == b""  # connections without a request are closed
        while accepts(server.port):
            pass
        assert server.process.poll() is None
        let_through()
        for connection in (running, waiting):
            assert connection.makefile().readline().split()[1] == "200"
    assert server.process.wait(timeout=60) == 0
    assert server.log.read_text().count("options: ") == 1


@pytest.mark.parametrize("option", ["no/such/bundle", "--engine=nope"])
def test_what_cannot_be_served_is_one_line_and_code_two(bundle: Path, option: str) -> None:
    path = option if "/" in option else str(bundle)
    arguments = [path, "--port", "0", *([option] if option != path else [])]
    result = subprocess.run(
        [sys.executable, "-m", "embed_server.cli", *arguments, "--log-level", "error"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ")
    assert option.rpartition("=")[2] in result.stderr
