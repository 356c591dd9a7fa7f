"""The document of the API: complete, current, and true of what its examples ask for."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.openapi import write_document
from embed_server.routes import all_routers
from embed_server.served_model import ServedModel

GOLDEN = Path(__file__).parents[2] / "server/openapi.json"
DOCUMENT: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
SHARED = DOCUMENT["components"]["responses"]
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    | {
        "responses": {
            status: SHARED[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
            for status, response in operation["responses"].items()
        }
    }
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
# Of a probe, or no JSON.
WITHOUT_EXAMPLES = {"GET /health", "GET /ping", "POST /ping", "GET /metrics"}
OPEN = WITHOUT_EXAMPLES


def examples_of(content: dict[str, Any]) -> list[Any]:
    """Collect the examples of a body: its own, or those of its models."""
    if "example" in content:
        return [content["example"]]
    if "examples" in content:
        return [one["value"] for one in content["examples"].values()]
    return [example for schema in models_in(content["schema"]) for example in schema["examples"]]


def models_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for alternative in schema.get("anyOf", [schema]):
        if "$ref" in alternative:
            yield DOCUMENT["components"]["schemas"][alternative["$ref"].rpartition("/")[2]]


def test_the_stored_document_is_current() -> None:
    assert write_document() == GOLDEN.read_text(encoding="utf-8"), "run make openapi"


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_endpoint_shows_bodies_answers_and_failures(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["description"]
    statuses = set(operation["responses"])
    assert ("401" in statuses) is (name not in OPEN) is ("security" in operation)
    assert "500" in statuses
    if name.startswith("POST") and name not in OPEN:
        assert {"404", "413", "429", "503", "504"} < statuses
        assert not statuses.isdisjoint({"400", "422"})
        assert examples_of(operation["requestBody"]["content"]["application/json"])
        retry = operation["responses"]["429"]["headers"]["Retry-After"]
        assert retry["schema"]["type"] == "integer"
    for status, response in operation["responses"].items():
        assert response["description"]
        assert "X-Request-Id" in response["headers"]
        if status not in ("200", "503"):
            assert examples_of(response["content"]["application/json"])
    if name not in WITHOUT_EXAMPLES:
        assert examples_of(operation["responses"]["200"]["content"]["application/json"])


def test_every_field_is_explained() -> None:
    unexplained = {
        f"{schema}.{name}"
        for operation in OPERATIONS.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for model in models_in(content["schema"])
        for schema in [model["title"]]
        for name, field in model["properties"].items()
        if "description" not in field
    }
    assert unexplained == set()


def test_examples_of_answers_are_what_the_endpoints_say_they_answer() -> None:
    for router in all_routers():
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                operation = OPERATIONS.get(f"{method} {route.path_format}")
                if operation is None or route.response_model is None:
                    continue
                answers = operation["responses"]["200"]["content"]["application/json"]
                for example in examples_of(answers):
                    TypeAdapter(route.response_model).validate_python(example)


@pytest.fixture
def client(sparse_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    """Talk to an app whose model does all there is."""
    with Runtime(sparse_bundle("token_weights")) as runtime:
        names = ("all-MiniLM-L6-v2",)
        yield TestClient(create_app([ServedModel.of(runtime, names)], ServerConfig()))


@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_of_requests_succeed(client: TestClient, name: str) -> None:
    operation = OPERATIONS[name]
    method, _, path = name.partition(" ")
    query: dict[str, str] = {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
        else:
            query[parameter["name"]] = parameter["example"]
    body = operation.get("requestBody", {"content": {}})["content"].get("application/json")
    for example in examples_of(body) if body else [None]:
        response = client.request(method, path, params=query, json=example)
        assert response.status_code == 200, (example, response.text)
