"""Several bundles in one server: names, choice, and what is told of each."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from embed_runtime import InputError, Runtime
from embed_runtime.manifest import Dimensions
from embed_server.app import create_app
from embed_server.bundles import BundleSource
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

DummyBundle = Callable[..., Path]


@pytest.fixture
def small_and_large(dummy_bundle: DummyBundle) -> Iterator[tuple[Runtime, Runtime]]:
    small = dummy_bundle("small", dimensions=Dimensions(native=16, matryoshka=()), hidden_size=16)
    with Runtime(small) as one, Runtime(dummy_bundle("large")) as other:
        yield one, other


@pytest.fixture
def client(small_and_large: tuple[Runtime, Runtime]) -> TestClient:
    models = [ServedModel.of(runtime) for runtime in small_and_large]
    return TestClient(create_app(models, ServerConfig()))


@pytest.mark.parametrize(
    ("name", "reported", "index"),
    [("small", "small", 0), ("tests/small", "small", 0), ("large", "large", 1)],
)
def test_the_name_chooses_the_bundle(
    client: TestClient,
    small_and_large: tuple[Runtime, Runtime],
    name: str,
    reported: str,
    index: int,
) -> None:
    expected = small_and_large[index].embed(["the model"])
    answer = client.post("/v1/embeddings", json={"input": "the model", "model": name}).json()
    assert answer["model"] == reported
    assert np.array_equal(np.array([answer["data"][0]["embedding"]], np.float32), expected)
    answer = client.post("/v2/embed", json={"texts": ["the model"], "model": name}).json()
    assert np.array_equal(np.array(answer["embeddings"]["float"], np.float32), expected)
    assert client.get("/info", params={"model": name}).json()["model_names"][0] == reported


@pytest.mark.parametrize("fields", [{}, {"model": None}, {"model": ""}])
def test_of_several_bundles_one_must_be_named(client: TestClient, fields: dict[str, Any]) -> None:
    response = client.post("/v1/embeddings", json={"input": "x", **fields})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (
        400,
        "BadRequestError",
        "model",
    )
    assert "'small', 'large'" in error["message"]
    assert client.get("/info").status_code == 400


def test_an_unknown_name_is_told_the_known_ones(client: TestClient) -> None:
    response = client.post("/v1/embeddings", json={"input": "x", "model": "medium"})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (404, "NotFoundError", "model")
    assert "'small', 'tests/small', 'large', 'tests/large'" in error["message"]


def test_every_name_has_a_card(client: TestClient) -> None:
    cards = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["root"], card["dimensions"]) for card in cards] == [
        ("small", "tests/small", 16),
        ("tests/small", "tests/small", 16),
        ("large", "tests/large", 32),
        ("tests/large", "tests/large", 32),
    ]
    for card in cards:
        one = client.get(f"/v1/models/{card['id']}").json()
        assert (one["id"], one["dimensions"]) == (card["id"], card["dimensions"])
    for name in ("tests/medium", "%0A", "small%0A", "a%0Ab"):
        missing = client.get(f"/v1/models/{name}")
        assert (missing.status_code, missing.json()["error"]["type"]) == (404, "NotFoundError")
    assert client.get("/v1/models/").json()["object"] == "list"


def test_metrics_are_counted_for_each_model(client: TestClient) -> None:
    client.post("/v1/embeddings", json={"input": ["a", "the"], "model": "small"})
    client.post("/v1/embeddings", json={"input": "a", "model": "tests/large"})
    samples = {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    for name in ("embed_request_inputs_sum", "embed_batch_rows_total"):
        assert (samples[name, "small"], samples[name, "large"]) == (2, 1)
    assert samples["embed_model_info", "small"] == samples["embed_model_info", "large"] == 1


def test_one_broken_engine_makes_the_server_unhealthy(
    client: TestClient, small_and_large: tuple[Runtime, Runtime]
) -> None:
    assert client.get("/health").status_code == 200
    small_and_large[1].close()
    assert client.post("/v1/embeddings", json={"input": "x", "model": "large"}).status_code == 503
    assert client.get("/health").status_code == 503
    assert client.post("/v1/embeddings", json={"input": "x", "model": "small"}).status_code == 200


def test_a_name_used_twice_is_refused(dummy_bundle: DummyBundle) -> None:
    with Runtime(dummy_bundle("one")) as one, Runtime(dummy_bundle("two")) as two:
        models = [ServedModel.of(one, ("same",)), ServedModel.of(two, ("other", "same"))]
        with pytest.raises(InputError, match="both called 'same'; name them apart"):
            create_app(models, ServerConfig())


@pytest.mark.parametrize(
    ("text", "path", "names"),
    [
        ("engines/a", "engines/a", ()),
        ("name=engines/a", "engines/a", ("name",)),
        ("name,alias=engines/a", "engines/a", ("name", "alias")),
    ],
)
def test_a_bundle_may_be_named(text: str, path: str, names: tuple[str, ...]) -> None:
    assert BundleSource.parse(text) == BundleSource(path=Path(path), names=names)


def test_a_path_that_is_there_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "name=bundle"
    folder.mkdir()
    assert BundleSource.parse(str(folder)) == BundleSource(path=folder)


def test_a_server_with_two_bundles(start_server: Any, dummy_bundle: DummyBundle) -> None:
    server = start_server(dummy_bundle("first"), f"second,alias={dummy_bundle('other')}")
    assert server.ready_line.startswith(
        "embed-runtime: serving first (dummy, fp32, 32 dimensions), "
        "second (dummy, fp32, 32 dimensions) on http://"
    )
    assert server.stop() == 0


def test_a_bundle_that_cannot_be_opened_is_named(dummy_bundle: DummyBundle) -> None:
    good, bad = dummy_bundle("good"), dummy_bundle("bad")
    (bad / "tokenizer.json").write_text("{}")
    command = [sys.executable, "-m", "embed_server.cli", str(good), str(bad), "--port", "0"]
    result = subprocess.run(
        [*command, "--log-level", "error"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"error: cannot serve {bad}: ")
