"""What a server logs: requests when asked, one JSON object a line when asked."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime, RuntimeConfig
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.logs import JsonFormatter, log_options
from embed_server.served_model import ServedModel


@pytest.mark.parametrize(("access_log", "level"), [(True, "INFO"), (False, "DEBUG")])
def test_every_request_is_logged_when_asked(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, access_log: bool, level: str
) -> None:
    caplog.set_level("DEBUG", logger="embed_server")
    client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(access_log=access_log)))
    client.post("/v1/embeddings", json={"input": []}, headers={"X-Request-Id": "trace-me"})
    [record] = [record for record in caplog.records if record.name == "embed_server.middleware"]
    message = record.getMessage()
    assert record.levelname == level
    assert message.startswith("request trace-me from testclient: POST /v1/embeddings -> 400 in ")


def test_listed_paths_are_not_logged(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="embed_server.middleware")
    config = ServerConfig(
        access_log=True,
        disable_access_log_for_endpoints=("/health, /load", "/version"),
        root_path="/under",
    )
    client = TestClient(create_app([ServedModel.of(runtime)], config), root_path="/under")
    for path in ("/health", "/under/load", "/version", "/v1/models"):
        assert client.get(path).status_code == 200
    assert [record.message.split(" ")[5] for record in caplog.records] == ["/v1/models"]


def test_a_path_cannot_forge_a_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="embed_server.middleware")
    client.get("/a%0Arequest%20forged")
    [record] = [record for record in caplog.records if record.name == "embed_server.middleware"]
    assert "GET /a%0Arequest%20forged -> 404" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_json_lines_from_a_running_server(
    start_server: Any, dummy_bundle: Callable[..., Path]
) -> None:
    server = start_server(dummy_bundle(), "--log-format", "json", "--access-log", "--api-key", "k")
    headers = {"X-Request-Id": "trace-me", "Authorization": "Bearer k"}
    response = httpx.post(f"{server.url}/v1/embeddings", json={"input": "a"}, headers=headers)
    assert response.headers["X-Request-Id"] == "trace-me"
    assert server.stop() == 0
    options, request = map(json.loads, server.log.read_text().splitlines())
    assert (options["level"], options["options"]["api_key"]) == ("info", "1 keys")
    assert options["options"]["log_format"] == "json"
    assert request.pop("milliseconds") > 0
    assert request.pop("time") > options["time"]
    assert request.pop("message").startswith("request trace-me from 127.0.0.1: POST ")
    assert request == {
        "level": "info",
        "logger": "embed_server.middleware",
        "request_id": "trace-me",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/embeddings",
        "status": 200,
    }


def test_a_json_line_holds_the_traceback() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("two\nlines")
    cause = (caught.type, caught.value, caught.tb)
    record = logging.LogRecord("name", logging.ERROR, __file__, 1, "%s failed", ("it",), cause)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    answer = json.loads(line)
    assert (answer["message"], answer["level"]) == ("it failed", "error")
    assert answer["exception"].endswith("Expecting value: line 1 column 1 (char 0)")


def test_the_log_holds_the_options_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log_options(ServerConfig(api_key=("secret", "hidden")), RuntimeConfig(num_threads=3))
    assert "api_key=2 keys" in caplog.text
    assert "num_threads=3" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in repr(ServerConfig(api_key=("secret",)))


def test_the_documentation_pages_can_be_left_out(runtime: Runtime) -> None:
    config = ServerConfig(disable_fastapi_docs=True)
    client = TestClient(create_app([ServedModel.of(runtime)], config))
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404
