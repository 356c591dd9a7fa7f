"""`/pooling`: every task of a bundle, in every encoding."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.protocol.pooling import PoolingResponse
from embed_server.served_model import ServedModel

URL = "/pooling"
TEXTS = ["the model", "a long text", ""]


@pytest.fixture
def runtime(sparse_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    """Open a bundle that offers every task."""
    with Runtime(sparse_bundle("token_weights")) as opened:
        yield opened


def pool(client: TestClient, **body: Any) -> list[Any]:
    response = client.post(URL, json={"input": TEXTS} | body)
    assert response.status_code == 200, response.text
    answer = response.json()
    PoolingResponse.model_validate(answer, strict=True, extra="forbid")
    assert answer["id"].startswith("pooling-")
    assert answer["usage"]["prompt_tokens"] == 11
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    return [item["data"] for item in answer["data"]]


def test_vectors(client: TestClient, runtime: Runtime) -> None:
    expected = runtime.embed(TEXTS)
    assert np.array_equal(np.array(pool(client), np.float32), expected)
    assert np.array_equal(np.array(pool(client, task="embed"), np.float32), expected)
    cut = np.array(pool(client, task=None, dimensions=8, use_activation=False), np.float32)
    assert np.array_equal(cut, runtime.embed(TEXTS, dimensions=8, normalize=False))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_of_tokens(client: TestClient, runtime: Runtime, encoding: str) -> None:
    answers = pool(client, task="token_embed", encoding_format=encoding)
    for answer, expected in zip(answers, runtime.encode(TEXTS, task="token_embed"), strict=True):
        if encoding == "base64":
            answer = np.frombuffer(base64.b64decode(answer), "<f4").reshape(expected.data.shape)
        assert np.array_equal(np.array(answer, np.float32), expected.data)


def test_weights(client: TestClient, runtime: Runtime) -> None:
    answers = pool(client, task="sparse")
    encoded = pool(client, task="sparse", encoding_format="base64", endianness="big")
    for plain, packed, expected in zip(
        answers, encoded, runtime.encode(TEXTS, task="sparse"), strict=True
    ):
        values = np.array(plain["values"], np.float32).tolist()
        assert dict(zip(plain["indices"], values, strict=True)) == expected.data
        indices = np.frombuffer(base64.b64decode(packed["indices"]), ">i4")
        weights = np.frombuffer(base64.b64decode(packed["values"]), ">f4")
        assert dict(zip(indices.tolist(), weights.tolist(), strict=True)) == expected.data


def encode(runtime: Runtime, task: str) -> list[Any]:
    if task == "sparse":
        return [output.data for output in runtime.encode(TEXTS, task="sparse")]
    return [output.data for output in runtime.encode(TEXTS, task="token_embed")]


@pytest.mark.parametrize("task", ["token_embed", "sparse"])
def test_bytes_are_described(client: TestClient, runtime: Runtime, task: str) -> None:
    body = {"input": TEXTS, "task": task, "encoding_format": "bytes", "endianness": "big"}
    response = client.post(URL, json=body)
    content, metadata = response.content, json.loads(response.headers["metadata"])
    assert metadata["id"].startswith("pooling-")
    assert metadata["data"][-1]["end"] == len(content)
    for item, expected in zip(metadata["data"], encode(runtime, task), strict=True):
        values = np.frombuffer(content[item["start"] : item["end"]], ">f4").reshape(item["shape"])
        if task == "token_embed":
            assert np.array_equal(values, expected)
        else:
            ids = np.frombuffer(content[item["indices_start"] : item["indices_end"]], ">i4")
            assert dict(zip(ids.tolist(), values.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"task": "classify"}, "task", "embed, token_embed, sparse"),
        ({"task": "encode"}, "task", "renamed 'token_embed'"),
        ({"task": "score"}, "task", "renamed 'classify'"),
        ({"task": "sparse", "dimensions": 8}, None, "dimensions"),
        ({"task": "sparse", "use_activation": True}, "normalize", "never normalized"),
        ({"input": "word " * 80}, "input_tokens", "truncate_prompt_tokens=-1"),
        ({"input": []}, None, "at least one"),
    ],
)
def test_mistakes(client: TestClient, body: dict[str, Any], param: str | None, words: str) -> None:
    response = client.post(URL, json={"input": TEXTS} | body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "BadRequestError")
    assert error["param"] == param
    assert words in error["message"]


def test_a_bundle_without_the_task_names_those_it_has(dummy_bundle: Callable[..., Path]) -> None:
    with Runtime(dummy_bundle("plain")) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        response = client.post(URL, json={"input": "a", "task": "sparse"})
        assert response.status_code == 400
        assert response.json()["error"]["message"].endswith("does: embed, token_embed")
