"""`/tokenize`, `/detokenize` and `/invocations`."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ eos_token }}{% endif %}"
)
HELLO = [{"role": "user", "content": "the model"}]
CLS, SEP = "[CLS]", "[SEP]"


@pytest.fixture
def runtime(dummy_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    with Runtime(dummy_bundle(template=TEMPLATE)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": "the model"}, [CLS, "the", "model", SEP]),
        ({"prompt": "the model", "add_special_tokens": False}, ["the", "model"]),
        ({"prompt": ""}, [CLS, SEP]),
        ({"prompt": "word " * 80}, [CLS, *["word"] * 80, SEP]),
        ({"messages": HELLO}, [CLS, "the", "model", SEP]),
        ({"messages": HELLO, "add_generation_prompt": False}, [CLS, "the", "model"]),
        ({"messages": HELLO, "continue_final_message": True}, [CLS, "the", "model"]),
        ({"messages": HELLO, "add_special_tokens": True}, [CLS, CLS, "the", "model", SEP, SEP]),
    ],
)
def test_tokenize(client: TestClient, body: dict[str, Any], tokens: list[str]) -> None:
    answer = client.post("/tokenize", json=body | {"return_token_strs": True}).json()
    assert answer["token_strs"] == tokens
    assert (answer["count"], answer["max_model_len"]) == (len(tokens), 64)
    plain = client.post("/tokenize", json=body).json()
    assert (plain["tokens"], plain["token_strs"]) == (answer["tokens"], None)


def test_detokenize_gives_the_text_with_its_special_tokens(client: TestClient) -> None:
    tokens = client.post("/tokenize", json={"prompt": "the model"}).json()["tokens"]
    assert client.post("/detokenize", json={"tokens": tokens}).json() == {
        "prompt": "[CLS] the model [SEP]"
    }
    assert client.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}


@pytest.mark.parametrize(
    ("url", "body", "status", "param", "words"),
    [
        ("/tokenize", {}, 400, "body.prompt", "required"),
        ("/tokenize", {"prompt": ["a"]}, 400, "body.prompt", "string"),
        ("/tokenize", {"messages": [HELLO, HELLO]}, 400, "body.messages", "one conversation"),
        ("/tokenize", {"prompt": "a", "model": "nope"}, 404, "model", "'dummy'"),
        ("/detokenize", {"tokens": [-1]}, 400, "body.tokens.0", "greater"),
        ("/detokenize", {"tokens": [10**6]}, 400, None, "outside 0.."),
        ("/detokenize", {"tokens": "a"}, 400, "body.tokens", "array"),
        ("/detokenize", {"tokens": [1], "model": "nope"}, 404, "model", "'dummy'"),
        ("/invocations", {"text": "a"}, 400, "body", "input, messages, texts"),
        ("/invocations", ["a"], 400, "body", "object"),
        ("/invocations", {"input": 5}, 400, "body.input", "list of token ids"),
        ("/invocations", {"input": "a", "model": "nope"}, 404, "model", "'dummy'"),
    ],
)
def test_mistakes(
    client: TestClient, url: str, body: object, status: int, param: str | None, words: str
) -> None:
    response = client.post(url, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/embeddings", {"input": "the model", "encoding_format": "base64"}),
        ("/v1/embeddings", {"messages": HELLO}),
        ("/v1/embeddings", {"input": "the model", "task": "query"}),
        ("/pooling", {"input": "the model", "task": "token_embed"}),
        ("/v2/embed", {"texts": ["the model"], "input_type": "query"}),
        ("/score", {"queries": "the", "documents": ["model", "the"]}),
        ("/score", {"text_1": "the", "text_2": "model"}),
        ("/rerank", {"query": "the", "documents": ["model", "the"]}),
        ("/rerank", {"query": "the", "texts": ["model", "the"]}),
        ("/rerank", {"query": "the", "texts": []}),
        ("/v2/embed", {"inputs": [{"content": [{"type": "text", "text": "the"}]}]}),
        ("/embed", {"inputs": "the model", "prompt_name": "query"}),
        ("/embed", {"inputs": [[7, 8], "a"]}),
        ("/embed", {"inputs": "word " * 100}),
    ],
)
def test_invocations_answers_as_the_endpoint_whose_body_it_is(
    client: TestClient, url: str, body: dict[str, Any]
) -> None:
    headers = {"X-Request-Id": "same"}
    expected, found = (
        re.sub(r'"created":\d+', "", client.post(path, json=body, headers=headers).text)
        for path in (url, "/invocations")
    )
    assert found == expected


@pytest.mark.parametrize(
    ("url", "body", "words"),
    [
        ("/tokenize", {"prompt": "a" * 9}, "9 characters"),
        ("/tokenize", {"messages": [{"role": "user", "content": "abcd"}]}, "14 characters"),
        ("/tokenize", {"inputs": ["a" * 5, "a" * 4]}, "9 characters"),
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, "8 characters"),
        ("/detokenize", {"tokens": [5] * 9}, "9 token ids"),
        ("/decode", {"ids": [[5] * 5, [5] * 4]}, "9 token ids"),
    ],
)
def test_more_than_the_tokenizer_takes_at_once(
    runtime: Runtime, url: str, body: dict[str, Any], words: str
) -> None:
    most = int(words.split()[0])
    for limit, status in ((most - 1, 413), (most, 200)):
        config = ServerConfig(max_tokenize_chars=limit)
        client = TestClient(create_app([ServedModel.of(runtime)], config))
        response = client.post(url, json=body)
        assert response.status_code == status, response.text
        if status == 413:
            assert f"{words}, and max_tokenize_chars={limit};" in response.text
            assert "--max-tokenize-chars" in response.text


@pytest.mark.parametrize(
    ("url", "body"),
    [("/tokenize", {"inputs": ["a"] * 3}), ("/decode", {"ids": [[5]] * 3})],
)
def test_more_inputs_than_one_request_may_have(
    runtime: Runtime, url: str, body: dict[str, Any]
) -> None:
    config = ServerConfig(max_request_inputs=2)
    client = TestClient(create_app([ServedModel.of(runtime)], config))
    response = client.post(url, json=body)
    assert response.status_code == 413
    assert "3 inputs, and max_request_inputs=2" in response.text


def test_other_threads_run_while_ids_become_text(runtime: Runtime) -> None:
    ids = [100] * 1_000_000
    with ThreadPoolExecutor(1) as pool:
        started = last = time.perf_counter()
        longest = 0.0
        text = pool.submit(runtime.tokenizer.decode, ids)
        while not text.done():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        assert len(text.result()) > len(ids)
    assert longest < (last - started) / 2


def test_invocations_reads_broken_json_as_the_others_do(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/invocations", content=b'{"input": "x" "y"}', headers=headers)
    assert response.json()["error"]["param"] == "body.14"


def test_a_text_is_cut_behind_its_first_tokens(runtime: Runtime) -> None:
    tokenizer = runtime.tokenizer
    text = "The  models, 你好 " * 2000
    for num_tokens in (1, 2, 3, 7, 100):
        cut = tokenizer.shorten(text, num_tokens)
        assert text.startswith(cut)
        ids = tokenizer.encode_text(cut, add_special_tokens=False)
        whole = tokenizer.encode_text(text, add_special_tokens=False)
        assert np.array_equal(ids, whole[:num_tokens])
    assert tokenizer.shorten("the model", 2) == "the model"
