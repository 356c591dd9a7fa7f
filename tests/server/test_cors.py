"""Which web pages may call the server from a browser."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

PAGE = "https://app.example"
BODY = {"input": "x"}
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def serve(runtime: Runtime, **options: Any) -> TestClient:
    return TestClient(create_app([ServedModel.of(runtime)], ServerConfig(**options)))


def test_without_the_option_no_page_may(client: TestClient) -> None:
    response = client.post("/v1/embeddings", json=BODY, headers={"Origin": PAGE})
    assert response.status_code == 200
    assert not any(name.startswith("access-control") for name in response.headers)
    assert client.options("/v1/embeddings", headers=PREFLIGHT).status_code == 405


@pytest.mark.parametrize("origins", [(PAGE,), ("*",)])
def test_listed_pages_may(runtime: Runtime, origins: tuple[str, ...]) -> None:
    client = serve(runtime, allowed_origins=origins, api_key=("key",))
    allowed = client.options("/v1/embeddings", headers=PREFLIGHT)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == origins[0]
    assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
    for key, status in (("key", 200), ("wrong", 401)):
        headers = {"Origin": PAGE, "Authorization": f"Bearer {key}"}
        response = client.post("/v1/embeddings", json=BODY, headers=headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == origins[0]
        assert "X-Request-Id" in response.headers["access-control-expose-headers"]


def test_others_may_not(runtime: Runtime) -> None:
    client = serve(runtime, allowed_origins=(PAGE,))
    headers = PREFLIGHT | {"Origin": "https://evil.example"}
    response = client.options("/v1/embeddings", headers=headers)
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


def test_verbs_headers_and_credentials_are_chosen(runtime: Runtime) -> None:
    client = serve(
        runtime,
        allowed_origins=(PAGE,),
        allowed_methods=("GET",),
        allowed_headers=("content-type",),
        allow_credentials=True,
    )
    response = client.options("/v1/embeddings", headers=PREFLIGHT)
    assert (response.status_code, response.text) == (400, "Disallowed CORS method, headers")
    headers = PREFLIGHT | {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "content-type",
    }
    response = client.options("/v1/models", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-credentials"] == "true"
