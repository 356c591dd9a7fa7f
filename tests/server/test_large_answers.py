"""Large answers: the same as small ones, but made in threads and written in pieces."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server import answers, scoring
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.protocol import pieces
from embed_server.protocol.pieces import dumps, iter_json
from embed_server.served_model import ServedModel

TEXTS = ["a", "the model", "find a place to play", "the model"]
MATRICES = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(np.zeros)
VALUES = st.recursive(
    st.none() | st.integers(0, 999) | st.text(max_size=99) | MATRICES,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(value=VALUES, most=st.integers(1, 20))
def test_pieces_are_the_same_json(value: object, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MAX_VALUES_AT_ONCE", most)
        assert b"".join(iter_json(value)) == dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((90, 8)),
        [np.zeros((90, 8))],
        [{"index": index, "embedding": np.zeros(8)} for index in range(90)],
        {"embeddings": {"float": np.zeros((90, 8)), "base64": ["AAAA" * 16] * 90}},
        [[{"index": 5, "value": 0.5}] * 300, [{"index": 5, "value": 0.5}] * 300],
    ],
)
def test_no_piece_is_large(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_VALUES_AT_ONCE", 32)
    assert max(map(len, iter_json(value))) < 1000 < len(dumps(value))


def watch(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[bool]:
    """Note at each call of a function whether it is made on an event loop."""
    function, found = getattr(module, name), list[bool]()

    def watched(*args: Any, **options: Any) -> Any:
        try:
            asyncio.get_running_loop()
            found.append(True)
        except RuntimeError:
            found.append(False)
        return function(*args, **options)

    monkeypatch.setattr(module, name, watched)
    return found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": TEXTS}),
        ("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"}),
        ("/v1/embeddings", {"input": TEXTS, "pooling_task": "token_embed"}),
        ("/v1/embeddings", {"input": TEXTS, "encoding_format": "bytes"}),
        ("/pooling", {"input": TEXTS, "task": "sparse"}),
        ("/v2/embed", {"texts": TEXTS, "embedding_types": ["float", "int8", "ubinary"]}),
        ("/embed", {"inputs": TEXTS}),
        ("/embed_all", {"inputs": TEXTS}),
        ("/embed_sparse", {"inputs": TEXTS}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": TEXTS}}),
        ("/score", {"queries": "a", "documents": TEXTS}),
        ("/score", {"queries": "a", "documents": TEXTS, "task": "token_embed"}),
        ("/rerank", {"query": "a", "documents": TEXTS}),
        ("/rerank", {"query": "a", "texts": TEXTS}),
    ],
)
def test_large_answers_are_the_same_and_made_off_the_event_loop(
    sparse_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
) -> None:
    with Runtime(sparse_bundle("token_weights")) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        contents: list[bytes] = []
        for most in (pieces.MAX_VALUES_AT_ONCE, 1):
            with monkeypatch.context() as patch:
                for module in (pieces, answers):
                    patch.setattr(module, "MAX_VALUES_AT_ONCE", most)
                patch.setattr(scoring, "_MAX_VALUES_AT_ONCE", most)
                on_loop = [
                    watch(patch, module, name)
                    for module, name in (
                        (orjson, "dumps"),
                        (answers, "encode_bytes"),
                        (scoring, "score_results"),
                    )
                ]
                response = client.post(path, json=body, headers={"X-Request-Id": "same"})
            assert response.status_code == 200, response.text
            contents.append(re.sub(rb'"created":\d+', b"", response.content))
            assert {one for found in on_loop for one in found} == {most > 1}
        assert contents[0] == contents[1]


def test_a_large_answer_comes_whole_over_the_wire(
    start_server: Callable[..., Any], dummy_bundle: Callable[..., Path]
) -> None:
    inputs = [[5, 6], [7]] * 2500
    url = f"{start_server(dummy_bundle()).url}/v1/embeddings"
    response = httpx.post(url, json={"input": inputs}, timeout=60)
    assert response.headers["Transfer-Encoding"] == "chunked"
    first, second = (item["embedding"] for item in response.json()["data"][:2])
    assert [item["embedding"] for item in response.json()["data"]] == [first, second] * 2500
    assert response.json()["usage"]["total_tokens"] == 7500
