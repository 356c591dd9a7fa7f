"""`--chat-template` and its kin: whose template makes the text, and which are refused at start."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_runtime.bundle import read_manifest
from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import EmbedError, InputError
from embed_server import cli
from embed_server.app import create_app
from embed_server.bundles import BundleSource, open_models
from embed_server.chat_template import check_special_tokens, open_chat_template
from embed_server.config import ContentFormat, ServerConfig
from embed_server.served_model import ServedModel

OWN = "own {% for message in messages %}{{ message.content }}{% endfor %}"
GIVEN = "{{ bos_token }}given {% for message in messages %}{{ message.content }}{% endfor %}"
# Says which form of a content it got.
FORM = "{% for message in messages %}{{ message.content is string }}{% endfor %}"
HELLO = [{"role": "user", "content": "the model"}]


def tokens(client: TestClient, **body: Any) -> list[int]:
    response = client.post("/tokenize", json={"messages": HELLO, **body})
    assert response.status_code == 200, response.text
    ids: list[int] = response.json()["tokens"]
    return ids


def encode(runtime: Runtime, text: str) -> list[int]:
    return list(runtime.tokenizer.encode_text(text, add_special_tokens=False))


def test_the_operators_template_wins_over_the_bundles_and_the_requests_over_both(
    dummy_bundle: Callable[..., Path],
) -> None:
    with Runtime(dummy_bundle(template=OWN)) as runtime:
        model = ServedModel.of(runtime, chat_template=open_chat_template(GIVEN))
        client = TestClient(create_app([model], ServerConfig(trust_request_chat_template=True)))
        given = "[CLS]given the model"
        assert tokens(client) == encode(runtime, given)
        assert tokens(client, chat_template="say a") == encode(runtime, "say a")
        answer = client.post("/v1/embeddings", json={"messages": HELLO}).json()
        vector = np.array(answer["data"][0]["embedding"], np.float32)
        assert np.array_equal(vector, runtime.embed([encode(runtime, given)])[0])


@pytest.mark.parametrize(
    ("content_format", "is_text"), [("auto", True), ("string", True), ("openai", False)]
)
def test_the_content_format_decides_what_a_template_gets(
    runtime: Runtime, content_format: ContentFormat, is_text: bool
) -> None:
    config = ServerConfig(chat_template_content_format=content_format)
    client = TestClient(create_app([ServedModel.of(runtime, chat_template=FORM)], config))
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    for messages in (HELLO, parts):
        assert tokens(client, messages=messages) == encode(runtime, str(is_text))


def test_a_file_or_the_text_itself(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(GIVEN, encoding="utf-8")
    assert open_chat_template(str(file)) == GIVEN
    assert open_chat_template(GIVEN) == GIVEN
    assert open_chat_template("plain words\n") == "plain words\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no/such.jinja", "cannot read no/such.jinja: No such file"),
        ("{% for %}", "the text is no template of Jinja: .* .line 1."),
        ("a\n{{ a | nope }}", "nope.* .line 2."),
    ],
)
def test_a_wrong_template_is_one_line_at_start(
    capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        open_chat_template(text)
    assert cli.main(["bundle", "--chat-template", text]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --chat-template: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("template", [OWN, None])
def test_special_tokens_come_from_the_bundles_own_template(
    dummy_bundle: Callable[..., Path], template: str | None
) -> None:
    known = read_manifest(dummy_bundle(template=template)).chat_template
    check_special_tokens(FORM, known)
    if template:
        check_special_tokens(GIVEN, known)
    else:
        with pytest.raises(InputError, match="bos_token, which a bundle without"):
            check_special_tokens(GIVEN, known)


def test_a_template_is_for_one_bundle() -> None:
    sources = [BundleSource(path=Path(name)) for name in "ab"]
    with ExitStack() as closing, pytest.raises(EmbedError, match="is for one bundle"):
        open_models(
            sources,
            engine=None,
            runtime_config=RuntimeConfig(),
            chat_template=OWN,
            closing=closing,
        )
