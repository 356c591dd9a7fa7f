"""Libraries that people use, and the README's own commands, against a real `embed-serve`."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohere import ClientV2
from openai import OpenAI

from embed_runtime import Runtime
from embed_runtime.types import FloatArray

# What these libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")

README = Path(__file__).parents[2] / "README.md"
TEXTS = ["the model", "a long text about words", "a"]
TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"


@pytest.fixture
def bundle(dummy_bundle: Callable[..., Path]) -> Path:
    return dummy_bundle(template=TEMPLATE)


@pytest.fixture
def url(start_server: Any, bundle: Path) -> str:
    """Start a server with a key, and return its address."""
    server_url: str = start_server(bundle, "--api-key", "key").url
    return server_url


def expected(bundle: Path, inputs: Any = TEXTS, **options: Any) -> FloatArray:
    with Runtime(bundle) as runtime:
        return runtime.embed(inputs, **options)


def check(vectors: object, wanted: FloatArray) -> None:
    assert np.array_equal(np.array(vectors, np.float32), wanted)


def record_looked_up_hosts(monkeypatch: pytest.MonkeyPatch) -> set[object]:
    """Collect the names of all hosts that this process talks to from now on."""
    looked_up: set[object] = set()
    look_up = socket.getaddrinfo

    def recording(host: Any, *rest: Any, **options: Any) -> Any:
        looked_up.add(host)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", recording)
    return looked_up


def test_openai_sends_conversations(url: str, bundle: Path) -> None:
    messages = [{"role": "user", "content": "the model"}]
    with OpenAI(base_url=f"{url}/v1", api_key="key") as client:
        answer = client.embeddings.create(
            model="dummy",
            input=[],
            extra_body={"messages": messages, "add_special_tokens": True},
        )
        prompted = client.embeddings.create(
            model="dummy", input=TEXTS, extra_body={"prompt_name": "query"}
        )
    check([item.embedding for item in answer.data], expected(bundle, ["user the model"]))
    check([item.embedding for item in prompted.data], expected(bundle, prompt_name="query"))


def test_cohere_ranks_and_embeds(url: str, bundle: Path) -> None:
    with ClientV2(base_url=url, api_key="key") as client:
        ranking = client.rerank(model="dummy", query="the model", documents=TEXTS, top_n=2)
        answer = client.embed(
            model="dummy",
            texts=TEXTS,
            input_type="search_document",
            embedding_types=["float", "binary", "base64"],
            output_dimension=8,
        )
    with Runtime(bundle) as runtime:
        scores = runtime.score("the model", TEXTS)
    assert [item.index for item in ranking.results] == np.argsort(-scores)[:2].tolist()
    assert np.allclose(
        [item.relevance_score for item in ranking.results], -np.sort(-scores)[:2], atol=1e-6
    )
    wanted = expected(bundle, prompt_name="document", dimensions=8)
    check(answer.embeddings.float_, wanted)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None


def test_langchain_sends_texts_when_told_to(url: str, bundle: Path) -> None:
    langchain = pytest.importorskip("langchain_openai")
    client = langchain.OpenAIEmbeddings(
        model="dummy", base_url=f"{url}/v1", api_key="key", check_embedding_ctx_length=False
    )
    check(client.embed_documents(TEXTS), expected(bundle))
    check(client.embed_query("the model"), expected(bundle, ["the model"])[0])


@pytest.mark.parametrize("token_ids", [[5, 6, 7], [5, 10**6]])
def test_langchain_sends_ids_of_another_models_tokens_by_default(
    url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, token_ids: list[int]
) -> None:
    langchain = pytest.importorskip("langchain_openai")
    tiktoken = pytest.importorskip("tiktoken")

    class Encoding:  # the real one is downloaded
        def encode(self, *_texts: str, **_options: object) -> list[int]:
            return token_ids

        def encode_ordinary(self, _text: str) -> list[int]:
            return token_ids

    def encoding_for_model(_name: str) -> Encoding:
        return Encoding()

    monkeypatch.setattr(tiktoken, "encoding_for_model", encoding_for_model)
    client = langchain.OpenAIEmbeddings(model="dummy", base_url=f"{url}/v1", api_key="key")
    if max(token_ids) < 1000:  # ids that this model has too: a wrong vector, and nobody can tell
        check(client.embed_query("the model"), expected(bundle, [token_ids])[0])
    else:
        with pytest.raises(Exception, match="1000000 is outside"):
            client.embed_query("the model")


def test_llama_index(url: str, bundle: Path) -> None:
    like = pytest.importorskip("llama_index.embeddings.openai_like")
    client = like.OpenAILikeEmbedding(
        model_name="dummy", api_base=f"{url}/v1", api_key="key", embed_batch_size=2
    )
    check(client.get_text_embedding_batch(TEXTS), expected(bundle))
    check(client.get_query_embedding("the model"), expected(bundle, ["the model"])[0])
    openai = pytest.importorskip("llama_index.embeddings.openai")
    client = openai.OpenAIEmbedding(
        model_name="dummy", api_base=f"{url}/v1", api_key="key", dimensions=8
    )
    check(client.get_text_embedding("a"), expected(bundle, ["a"], dimensions=8)[0])


@pytest.fixture
def event_loop_of_thread() -> Iterator[None]:
    """Close what a library that asks for this thread's event loop would leave open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("event_loop_of_thread")
def test_litellm(url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import goes online
    asked_for = record_looked_up_hosts(monkeypatch)
    litellm = import_module("litellm")
    to_server = {"api_base": f"{url}/v1", "api_key": "key"}
    for name in ("openai/dummy", "hosted_vllm/dummy"):
        answer = litellm.embedding(model=name, input=TEXTS, encoding_format="float", **to_server)
        check([item["embedding"] for item in answer.data], expected(bundle))
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
        shorter = litellm.embedding(
            model=name,
            input=TEXTS,
            dimensions=8,
            allowed_openai_params=["dimensions"],
            **to_server,
        )
        check([item["embedding"] for item in shorter.data], expected(bundle, dimensions=8))
    with pytest.raises(litellm.BadRequestError, match="dimensions=1000000 "):
        litellm.embedding(
            model=name,
            input=TEXTS,
            dimensions=10**6,
            allowed_openai_params=["dimensions"],
            **to_server,
        )
    with pytest.raises(litellm.AuthenticationError):
        litellm.embedding(model=name, input=TEXTS, api_base=f"{url}/v1", api_key="wrong")
    ranking = litellm.rerank(
        model=name, query="the model", documents=TEXTS, top_n=2, api_base=url, api_key="key"
    )
    with Runtime(bundle) as runtime:
        scores = runtime.score("the model", TEXTS)
    assert [item["index"] for item in ranking.results] == np.argsort(-scores)[:2].tolist()
    assert asked_for == {"127.0.0.1"}


def test_commands_of_the_readme_answer_what_it_shows(start_server: Any, bundle: Path) -> None:
    server = start_server(bundle, "--served-model-name", "all-MiniLM-L6-v2")
    shown = re.findall(
        r"^\$ (curl (?:.*\\\n)*.*)\n(.+)$", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(shown) >= 3
    for command, answer in shown:
        result = subprocess.run(
            ["bash", "-c", command.replace("localhost:8000", f"127.0.0.1:{server.port}")],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        names = re.findall(r'"(\w+)":', answer)
        assert re.findall(r'"(\w+)":', result.stdout)[: len(names)] == names
    assert server.stop() == 0
