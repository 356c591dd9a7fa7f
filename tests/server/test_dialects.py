"""One text, one vector: through every API and in every encoding that keeps all of it."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_runtime.types import FloatArray

TEXTS = ["the model", "a long text about words", "", "the model"]

Ask = Callable[..., Any]
Embed = Callable[[Ask, str | None], FloatArray]


def openai(ask: Ask, prompt: str | None, **fields: Any) -> list[Any]:
    answer = ask("/v1/embeddings", input=TEXTS, prompt_name=prompt, **fields).json()
    return [item["embedding"] for item in answer["data"]]


def openai_floats(ask: Ask, prompt: str | None) -> FloatArray:
    return np.array(openai(ask, prompt), np.float32)


def openai_base64(ask: Ask, prompt: str | None) -> FloatArray:
    rows = openai(ask, prompt, encoding_format="base64")
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])


def openai_bytes(ask: Ask, prompt: str | None) -> FloatArray:
    response = ask("/v1/embeddings", input=TEXTS, prompt_name=prompt, encoding_format="bytes_only")
    return np.frombuffer(response.content, "<f4").reshape(len(TEXTS), -1)


def pooling(ask: Ask, prompt: str | None) -> FloatArray:
    answer = ask("/pooling", input=TEXTS, prompt_name=prompt, task="embed").json()
    return np.array([item["data"] for item in answer["data"]], np.float32)


def cohere(ask: Ask, prompt: str | None) -> FloatArray:
    answer = ask("/v2/embed", texts=TEXTS, input_type=prompt, embedding_types=["float"]).json()
    return np.array(answer["embeddings"]["float"], np.float32)


def cohere_base64(ask: Ask, prompt: str | None) -> FloatArray:
    answer = ask("/v2/embed", texts=TEXTS, input_type=prompt, embedding_types=["base64"]).json()
    rows = answer["embeddings"]["base64"]
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])


def tei(ask: Ask, prompt: str | None) -> FloatArray:
    return np.array(ask("/embed", inputs=TEXTS, prompt_name=prompt).json(), np.float32)


@pytest.mark.parametrize("prompt", [None, "query"])
@pytest.mark.parametrize(
    "embed", [openai_floats, openai_base64, openai_bytes, pooling, cohere, cohere_base64, tei]
)
def test_every_api_gives_the_same_vectors(
    client: TestClient, runtime: Runtime, embed: Embed, prompt: str | None
) -> None:
    def ask(path: str, **body: Any) -> Any:
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response

    assert np.array_equal(embed(ask, prompt), runtime.embed(TEXTS, prompt_name=prompt))
