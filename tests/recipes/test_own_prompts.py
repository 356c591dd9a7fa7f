"""Texts that bring their own prompt (GritLM): pooled without it, whatever they come through.

The rule is that of GritLM's own code, which tokenizes the prompt alone and pools what is behind it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from starlette.testclient import TestClient

from embed_export.config import ExportConfig
from embed_export.export import export_bundle
from embed_runtime import Runtime
from embed_runtime.bundle import read_manifest
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import EmbedRequest
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

pytestmark = pytest.mark.usefixtures("fast_exports")

Array = npt.NDArray[Any]


TEXT = "how do plants make sugar?\n<|embed|>\nis text, behind a prompt"
PLAIN = "<|embed|>\n"
INSTRUCTED = "<|user|>\nfind passages\nof two lines\n<|embed|>\n"
EMPTY = "<|user|>\n<|embed|>\n"


@pytest.fixture
def decoder(make_decoder: Callable[..., Any]) -> Any:
    return make_decoder("gritlm")


@pytest.fixture
def bundle(decoder: Any, tmp_path: Path) -> Path:
    config = ExportConfig(
        model=str(decoder.folder), output=tmp_path / "bundle", engines=("onnxruntime",)
    )
    return export_bundle(config)[0]


def reference(decoder: Any, tokenizer: Tokenizer, prompt: str) -> Array:
    ids = tokenizer.encode_text(prompt + TEXT)
    num_prompt = len(tokenizer.encode_text(prompt)) - 1  # without the EOS at its end
    pooled: Array = decoder.original()(ids)[num_prompt:].mean(axis=0)
    unit: Array = pooled / np.linalg.norm(pooled)
    return unit


def openai(client: TestClient, text: str) -> Any:
    return client.post("/v1/embeddings", json={"input": text}).json()["data"][0]["embedding"]


def named(client: TestClient, text: str) -> Any:
    body = {"input": text, "prompt_name": "query"}
    return client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]


def ids(client: TestClient, text: str) -> Any:
    tokens = client.post("/tokenize", json={"prompt": text}).json()["tokens"]
    return client.post("/v1/embeddings", json={"input": tokens}).json()["data"][0]["embedding"]


def tei_ids(client: TestClient, text: str) -> Any:
    [row] = client.post("/tokenize", json={"inputs": text}).json()
    return client.post("/embed", json={"inputs": [[token["id"] for token in row]]}).json()[0]


def chat(client: TestClient, text: str) -> Any:
    body = {"messages": [{"role": "user", "content": text}]}
    return client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]


def pooling(client: TestClient, text: str) -> Any:
    return client.post("/pooling", json={"input": text}).json()["data"][0]["data"]


def cohere(client: TestClient, text: str) -> Any:
    body = {"texts": [text], "input_type": "search_query"}
    return client.post("/v2/embed", json=body).json()["embeddings"]["float"][0]


def tei(client: TestClient, text: str) -> Any:
    return client.post("/embed", json={"inputs": text}).json()[0]


DIALECTS = (openai, named, ids, tei_ids, chat, pooling, cohere, tei)


def test_every_api_gives_the_references_vector(decoder: Any, bundle: Path) -> None:
    with Runtime(bundle) as runtime:
        # As models' own templates do, this one writes the special tokens.
        first, last = (
            runtime.tokenizer.decode([runtime.tokenizer.encode_text("")[at]]) for at in (0, -1)
        )
        template = f"{first}{{{{ messages[0].content }}}}{last}"
        model = ServedModel.of(runtime, chat_template=template)
        for compat in (None, "vllm"):
            client = TestClient(create_app([model], ServerConfig(compat=compat)))
            for prompt in (PLAIN, INSTRUCTED, EMPTY):
                expected = reference(decoder, runtime.tokenizer, prompt)
                for ask in DIALECTS:
                    found = np.array(ask(client, prompt + TEXT))
                    assert np.abs(found - expected).max() < 1e-5, (compat, prompt, ask.__name__)


def test_one_request_may_mix_texts_with_their_own_prompts_and_texts_without(
    decoder: Any, bundle: Path
) -> None:
    with Runtime(bundle) as runtime:
        vectors = runtime.embed([TEXT, INSTRUCTED + TEXT, PLAIN + TEXT])
        for vector, prompt in zip(vectors, (PLAIN, INSTRUCTED, PLAIN), strict=True):
            expected = reference(decoder, runtime.tokenizer, prompt)
            assert np.abs(vector - expected).max() < 1e-5
        assert vectors[0] @ vectors[1] < 0.999
        assert np.array_equal(
            runtime.embed(INSTRUCTED + TEXT), runtime.embed(TEXT, prompt=INSTRUCTED)
        )


def test_what_only_looks_like_a_prompt_is_text(bundle: Path) -> None:
    with Runtime(bundle) as runtime:
        tokenizer = runtime.tokenizer
        for text in (
            "<|user|>\nno end",
            "a\n<|embed|>\nb",
            "<|user|>\na <|embed|>\nb",
            "<|embed|>",
        ):
            assert tokenizer.put_in_front(PLAIN, text) == PLAIN + text
            [item] = tokenizer.encode(EmbedRequest(inputs=[tokenizer.encode_text(text)]))
            assert item.num_skipped == 0


@pytest.mark.parametrize("truncate", ["END", "START"])
def test_cutting_a_text_keeps_its_own_prompt(bundle: Path, truncate: Any) -> None:
    with Runtime(bundle) as runtime:
        text = "how do plants make sugar? " * 40
        cut = {"truncate": truncate}
        assert np.array_equal(
            runtime.embed(INSTRUCTED + text, **cut), runtime.embed(text, prompt=INSTRUCTED, **cut)
        )


def test_the_manifest_holds_the_marks(bundle: Path) -> None:
    marks = read_manifest(bundle).pooling.prompt_marks
    assert marks is not None
    assert (marks.start, marks.end) == ("<|user|>\n", "<|embed|>\n")
