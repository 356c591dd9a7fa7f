"""Apps over a dummy bundle, in this process and as real servers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig

MakeClient = Callable[..., TestClient]


@pytest.fixture
def runtime(dummy_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    with Runtime(dummy_bundle()) as opened:
        yield opened


@pytest.fixture
def client(runtime: Runtime) -> TestClient:
    """Talk to an app that serves the dummy bundle without keys."""
    return TestClient(create_app(runtime, ServerConfig()))
