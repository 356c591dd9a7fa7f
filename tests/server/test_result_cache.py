"""`--max-cache-bytes`: the same answers without the engine, and what the metrics say of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from embed_runtime import EngineError, Runtime, RuntimeConfig
from embed_runtime.engines.dummy import DummyEngine
from embed_server import cli, process
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

BODY = {"input": ["the water", "a", "the water"]}


@pytest.fixture
def cached_client(dummy_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    with Runtime(dummy_bundle(), config=RuntimeConfig(max_cache_bytes=1 << 20)) as runtime:
        yield TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))


def read_metrics(client: TestClient) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_answers_are_the_same_and_metrics_count_them(cached_client: TestClient) -> None:
    first = cached_client.post("/v1/embeddings", json=BODY).json()
    second = cached_client.post("/v1/embeddings", json=BODY).json()
    assert second["data"] == first["data"]
    assert second["usage"] == first["usage"]
    metrics = read_metrics(cached_client)
    assert metrics["embed_batches_total"] == 1
    assert (metrics["embed_cache_hits_total"], metrics["embed_cache_misses_total"]) == (3, 3)
    assert metrics["embed_cache_entries"] == 2
    assert 2 * 4 * 32 < metrics["embed_cache_bytes"] < 2000


def test_every_api_finds_the_same_results(cached_client: TestClient) -> None:
    vectors = cached_client.post("/embed", json={"inputs": BODY["input"]}).json()
    answer = cached_client.post("/v1/embeddings", json=BODY).json()
    assert [one["embedding"] for one in answer["data"]] == vectors
    assert read_metrics(cached_client)["embed_batches_total"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", BODY),
        ("/pooling", BODY),
        ("/rerank", {"query": "the water", "documents": ["a", "time"]}),
    ],
)
def test_a_salt_keeps_a_request_apart(
    cached_client: TestClient, path: str, body: dict[str, object]
) -> None:
    salted = body | {"cache_salt": "of one user"}
    for _ in range(2):
        assert cached_client.post(path, json=salted).status_code == 200
    metrics = read_metrics(cached_client)
    assert metrics["embed_cache_entries"] == metrics["embed_cache_misses_total"] == 0
    assert cached_client.post(path, json=body).status_code == 200
    assert cached_client.post(path, json=salted).status_code == 200
    metrics = read_metrics(cached_client)
    assert metrics["embed_cache_entries"] > metrics["embed_cache_hits_total"] == 0


def test_no_kept_result_makes_a_dead_engine_look_healthy(
    cached_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("the device is gone")

    kept = {"input": "health"}
    assert cached_client.post("/v1/embeddings", json=kept).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(DummyEngine, "run", fail)
        assert cached_client.post("/v1/embeddings", json={"input": "a"}).status_code == 500
        assert cached_client.post("/v1/embeddings", json=kept).status_code == 200
        assert cached_client.get("/health").status_code == 503
    assert cached_client.get("/health").status_code == 200


def test_option(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[RuntimeConfig] = []

    def serve(*_: object, runtime_config: RuntimeConfig, **__: object) -> None:
        configs.append(runtime_config)

    monkeypatch.setattr(process, "serve", serve)
    assert cli.main(["bundle"]) == cli.main(["bundle", "--max_cache_bytes", "1000000"]) == 0
    assert [config.max_cache_bytes for config in configs] == [0, 1_000_000]


def test_a_negative_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "--max-cache-bytes", "-1"]) == 2
    assert capsys.readouterr().err == (
        "error: max_cache_bytes=-1 must be at least 0; 0 keeps no results\n"
    )
