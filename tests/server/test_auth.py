"""Who gets in with a key, and what stays open without one."""

from collections.abc import Iterator

import pytest
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.routes import all_routers
from embed_server.served_model import ServedModel

KEYS = ("first-key", "schl\u00fcssel")


@pytest.fixture
def guarded(runtime: Runtime) -> TestClient:
    return TestClient(create_app([ServedModel.of(runtime)], ServerConfig(api_key=KEYS)))


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer first-key", 200),
        ("bearer first-key", 200),
        ("BEARER   first-key ", 200),
        ("Bearer schl\u00fcssel", 200),
        ("Bearer first-key2", 401),
        ("Bearer first-ke", 401),
        ("Bearer ", 401),
        ("Bearer", 401),
        ("first-key", 401),
        ("Basic first-key", 401),
        ("Bearer first-key,schl\u00fcssel", 401),
        (None, 401),
    ],
)
def test_keys(guarded: TestClient, authorization: str | None, status: int) -> None:
    headers = {b"Authorization": authorization.encode()} if authorization else {}
    response = guarded.post("/v1/embeddings", json={"input": "x"}, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.content == b'{"error":"Unauthorized"}'
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/ping", 200),
        ("POST", "/ping", 200),
        ("GET", "/version", 401),
        ("GET", "/load", 401),
        ("GET", "/metrics", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/models", 401),
        ("GET", "/info", 401),
        ("GET", "/health/", 401),
        ("GET", "//health", 401),
        ("POST", "/v2/embed", 401),
        ("GET", "/no/such/path", 401),
        ("POST", "/v1/embeddings?api_key=first-key", 401),
        ("OPTIONS", "/v1/embeddings", 405),
    ],
)
def test_paths_without_a_key(guarded: TestClient, method: str, path: str, status: int) -> None:
    assert guarded.request(method, path).status_code == status


@pytest.mark.parametrize("key", ["key\n", " key\r\n", "voil\u00e0"])
def test_keys_may_have_white_space_around_them(runtime: Runtime, key: str) -> None:
    client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig(api_key=(key,))))
    headers = {b"Authorization": f"Bearer {key.strip()}".encode()}
    assert client.get("/info", headers=headers).status_code == 200
    assert client.get("/info", headers={"Authorization": "Bearer "}).status_code == 401


def paths() -> Iterator[str]:
    routes: list[BaseRoute] = [route for router in all_routers() for route in router.routes]
    yield from (path for route in routes if (path := getattr(route, "path", "")))


@pytest.mark.parametrize("path", sorted({*paths()} - {"/health", "/ping", "/metrics"}))
def test_every_endpoint_is_guarded_unless_listed_here(guarded: TestClient, path: str) -> None:
    assert guarded.post(path).status_code == guarded.get(path).status_code == 401


def test_open_paths_are_found_below_the_root_path(runtime: Runtime) -> None:
    config = ServerConfig(api_key=KEYS, root_path="/embed")
    client = TestClient(create_app([ServedModel.of(runtime)], config), root_path="/embed")
    assert client.get("/embed/health").status_code == 200
    assert client.get("/embed/info").status_code == 401


def test_the_documentation_page_asks_for_the_key_where_one_is_needed(
    guarded: TestClient, client: TestClient
) -> None:
    paths = guarded.get("/openapi.json").json()["paths"]
    assert "security" in paths["/v1/embeddings"]["post"]
    assert "security" not in paths["/health"]["get"]
    assert "security" not in client.get("/openapi.json").text
