"""Conversations: which text a template makes of them, and what a template may not do."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server import chat
from embed_server.app import create_app
from embed_server.chat_worker import render
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

URL = "/v1/embeddings"
TEMPLATE = """{{ bos_token }}{% for message in messages %}
    {%- if message.role == 'wrong' %}{{ raise_exception('no role wrong here') }}{% endif %}
    {{- message.role }} {{ message.content }} {{ style }}{{ eos_token }}
    {%- endfor %}
{%- if add_generation_prompt %} say{% endif %}"""
HELLO = [{"role": "user", "content": "the model"}]


@pytest.fixture
def runtime(dummy_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    with Runtime(dummy_bundle(template=TEMPLATE)) as opened:
        yield opened


@pytest.fixture
def trusting(runtime: Runtime) -> TestClient:
    config = ServerConfig(trust_request_chat_template=True)
    return TestClient(create_app([ServedModel.of(runtime)], config))


def embed(client: TestClient, **body: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], np.float32)


def expected(runtime: Runtime, *rendered: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Embed texts that hold their special tokens already, as ids: nothing is added to those."""
    return runtime.embed(
        [runtime.tokenizer.encode_text(one, add_special_tokens=False) for one in rendered]
    )


PARTS = [{"type": "text", "text": "the"}, {"text": "model"}]
SYSTEM = {"role": "developer", "content": "say"}


@pytest.mark.parametrize(
    ("body", "rendered"),
    [
        ({"messages": HELLO}, ["[CLS]user the model [SEP]"]),
        ({"input": HELLO}, ["[CLS]user the model [SEP]"]),
        ({"messages": [HELLO, [SYSTEM, *HELLO]]}, [
            "[CLS]user the model [SEP]", "[CLS]system say [SEP]user the model [SEP]"]),
        ({"input": [HELLO, HELLO]}, ["[CLS]user the model [SEP]"] * 2),
        ({"messages": [{"role": "user", "content": PARTS}]}, ["[CLS]user the\nmodel [SEP]"]),
        ({"messages": HELLO, "add_generation_prompt": True}, ["[CLS]user the model [SEP] say"]),
        ({"messages": HELLO, "continue_final_message": True}, ["[CLS]user the model"]),
        ({"messages": HELLO, "chat_template_kwargs": {"style": "now", "unused": [1]}},
         ["[CLS]user the model now[SEP]"]),
        ({"messages": HELLO, "chat_template_kwargs": {"add_generation_prompt": True}},
         ["[CLS]user the model [SEP]"]),
        ({"messages": HELLO, "add_special_tokens": True}, ["[CLS][CLS]user the model [SEP][SEP]"]),
        ({"messages": HELLO, "prompt_name": "query"}, ["query: [CLS]user the model [SEP]"]),
        ({"messages": HELLO, "input": "something else"}, ["[CLS]user the model [SEP]"]),
        ({"messages": HELLO, "truncate_prompt_tokens": 4}, ["[CLS]user the"]),
    ],
)  # fmt: skip
def test_conversations(
    client: TestClient, runtime: Runtime, body: dict[str, Any], rendered: list[str]
) -> None:
    assert np.array_equal(embed(client, **body), expected(runtime, *rendered))


def test_a_default_prompt_stays_out_of_conversations(dummy_bundle: Callable[..., Path]) -> None:
    bundle = dummy_bundle("prompted", template=TEMPLATE, default_prompt="query")
    with Runtime(bundle) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        rendered = expected(runtime, "[CLS]user the model [SEP]")
        assert np.array_equal(embed(client, messages=HELLO), rendered)


SCHEMA, LATER = "Bad Request", "BadRequestError"
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

MISTAKES: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"messages": []}, SCHEMA, "body.messages", "at least 1"),
    ({"messages": [[]]}, SCHEMA, "body.messages.0", "at least 1"),
    ({"messages": "text"}, SCHEMA, "body.messages", "list of messages"),
    ({"messages": [{"content": "a"}]}, SCHEMA, "body.messages.0.role", "required"),
    ({"messages": [[{"content": "a"}]]}, SCHEMA, "body.messages.0.0.role", "required"),
    ({"input": [{"role": "user"}]}, SCHEMA, "body.input.0.content", "required"),
    ({"messages": HELLO, "add_generation_prompt": True, "continue_final_message": True},
     SCHEMA, "body", "cannot both be true"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, LATER, None, "text only"),
    ({"messages": [{"role": "user", "content": [{"image_url": "x"}]}]}, LATER, None, "text only"),
    ({"messages": HELLO, "chat_template": "{{ messages }}"}, LATER, None, "--trust-request"),
    ({"messages": HELLO, "chat_template_kwargs": {"chat_template": "x"}}, LATER, None, "--trust"),
    ({"messages": [{"role": "wrong", "content": "a"}]}, LATER, None, "no role wrong here"),
    ({"messages": HELLO, "media_io_kwargs": {"image": {}}}, LATER, "media_io_kwargs", "text only"),
    ({"messages": HELLO, "cache_salt": "a/b"}, LATER, "cache_salt", "128"),
    ({"messages": [{"role": "user", "content": "word " * 80}]}, LATER, "input_tokens", "64"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "error_type", "param", "words"), MISTAKES)
def test_mistakes(
    client: TestClient, body: dict[str, Any], error_type: str, param: str | None, words: str
) -> None:
    response = client.post(URL, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, error_type, param)
    assert words in error["message"]


def test_a_model_without_a_template_says_so(dummy_bundle: Callable[..., Path]) -> None:
    with Runtime(dummy_bundle("plain")) as runtime:
        client = TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))
        response = client.post(URL, json={"messages": HELLO})
        assert response.status_code == 400
        assert "no chat template" in response.json()["error"]["message"]


def test_a_trusted_template_comes_before_the_models(trusting: TestClient, runtime: Runtime) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    vectors = embed(trusting, messages=HELLO, chat_template=template)
    assert np.array_equal(vectors, expected(runtime, "[CLS]the model"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "2 s"),
        ("{{ 'a' * 10 ** 10 }}", "1024 MiB"),
        ("{{ 'a' * 70000000 }}", "characters"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "recursion"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% if %}", "Expected an expression"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ raise_exception('\\ud800') }}", "failed: \\ud800"),
        ("{{ raise_exception(messages) }}", "'role': 'user'"),
        ("{{ raise_exception('a' * 9000) }}", "failed: aaa"),
    ],
)  # fmt: skip
def test_a_template_that_explodes_is_refused_and_the_next_one_works(
    trusting: TestClient, runtime: Runtime, template: str, words: str
) -> None:
    response = trusting.post(URL, json={"messages": HELLO, "chat_template": template})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert len(response.content) < 1500
    again = embed(trusting, messages=HELLO)
    assert np.array_equal(again, expected(runtime, "[CLS]user the model [SEP]"))


def test_a_text_too_large_to_be_passed_on_is_refused(
    trusting: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With less memory, so that it takes no second to fill.
    worker = "from embed_server import chat_worker as w; w.MAX_MEMORY_BYTES = 1 << 28; w.main()"
    monkeypatch.setattr(chat, "_WORKER", (sys.executable, "-c", worker))
    # One byte for each character, and six once it is JSON, in two copies.
    template = "{{ messages[0].content * 25000000 }}"
    body = {"messages": [{"role": "user", "content": "\u00e9"}], "chat_template": template}
    response = trusting.post(URL, json=body)
    assert response.status_code == 400, response.text
    assert "it needs more than 256 MiB" in response.json()["error"]["message"]


def test_what_no_template_can_be_told_is_refused(client: TestClient) -> None:
    for number, status in ("9" * 40, 200), ("9" * 5000, 400):
        messages = '"messages": [{"role": "user", "content": "a"}]'
        body = f'{{{messages}, "chat_template_kwargs": {{"n": {number}}}}}'
        headers = {"Content-Type": "application/json"}
        assert client.post(URL, content=body, headers=headers).status_code == status


def test_the_child_process_is_replaced_when_it_is_gone_and_ends_with_the_server(
    start_server: Any, dummy_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    server = start_server(dummy_bundle("served", template=TEMPLATE))
    parent = psutil.Process(server.process.pid)
    with httpx.Client(base_url=server.url) as client:
        assert not parent.children()
        assert client.post(URL, json={"messages": HELLO}).status_code == 200
        [first] = parent.children()
        first.kill()
        assert client.post(URL, json={"messages": HELLO}).status_code == 200
        [second] = parent.children()
    assert server.stop() == 0
    _, alive = psutil.wait_procs([second], timeout=60)
    assert not alive


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{% for m in messages %}{% for p in m['content'] %}<{{ p.text }}>{% endfor %}{% endfor %}",
         "<a><b>"),
        (("{% for m in messages %}{% set c = m.content | list %}"
         "{% for p in c %}<{{ p.text }}>{% endfor %}{% endfor %}"), "<a><b>"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "a\nb"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "a\\nb", "name": "é"}]'),
        ("{% generation %}{{ messages[0].name }}{% endgeneration %}", "é"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("  {% if true %}\nx\n  {% endif %}", "x\n"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ tools is none and documents is none }}", "True"),
    ],
)  # fmt: skip
def test_what_templates_can_use(template: str, rendered: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    [text] = render(
        {
            "template": template,
            "conversations": [[{"role": "user", "content": parts, "name": "é"}]],
            "variables": {},
            "continue_final_message": False,
            "wants_parts": None,
        }
    )
    assert text == rendered
