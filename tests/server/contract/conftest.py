"""A model that does all there is, and what our own document says of its fields."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

DOCUMENT = Path(__file__).parents[3] / "server/openapi.json"


@pytest.fixture
def able_runtime(sparse_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    """Open a bundle with every task, prompts, a chat template and Matryoshka sizes."""
    template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    with Runtime(sparse_bundle("token_weights", template=template)) as runtime:
        yield runtime


@pytest.fixture
def able_client(able_runtime: Runtime) -> TestClient:
    return TestClient(create_app([ServedModel.of(able_runtime)], ServerConfig()))


@pytest.fixture(scope="session")
def documented_fields() -> Callable[[str], set[str]]:
    """Names the fields that `server/openapi.json` gives a request model."""
    schemas = json.loads(DOCUMENT.read_text(encoding="utf-8"))["components"]["schemas"]

    def fields(model: str) -> set[str]:
        return set(schemas[model]["properties"])

    return fields


@pytest.fixture
def compare_values(able_client: TestClient, refused: Callable[..., None]) -> Callable[..., None]:
    """Puts values into a field of a body that succeeds; see that they are taken, or refused."""

    def compare(
        path: str,
        body: dict[str, Any],
        name: str,
        taken: Sequence[Any],
        not_taken: Sequence[tuple[Any, int, str | None]],
    ) -> None:
        for value in taken:
            response = able_client.post(path, json=body | {name: value})
            assert response.status_code == 200, (value, response.text)
        for value, status, param in not_taken:
            refused(path, body | {name: value}, status, param)

    return compare


@pytest.fixture
def refused(able_client: TestClient) -> Callable[..., None]:
    """Posts a body that must be refused, in the words of vLLM's dialect."""

    def check(path: str, body: object, status: int, param: str | None) -> None:
        response = able_client.post(path, json=body)
        assert response.status_code == status, response.text
        error: dict[str, Any] = response.json()["error"]
        by_schema = param is not None and param.startswith("body")
        words = {400: "Bad Request" if by_schema else "BadRequestError", 404: "NotFoundError"}
        assert (error["type"], error["param"]) == (words[status], param)
        assert error["code"] == status
        assert list(error) == ["message", "type", "param", "code"]

    return check
