"""A runtime with a result cache gives what it gives without one, whatever is asked for."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_runtime import ClosedError, EmbedRequest, InputError, Runtime, RuntimeConfig
from embed_runtime.manifest import Pooling
from embed_runtime.types import EmbedResult

MakeBundle = Callable[..., Path]
MakeSparse = Callable[..., Path]

SECONDS = 30
CACHED = RuntimeConfig(max_cache_bytes=1 << 22, max_batch_tokens=50)
TEXTS = ["the water", "a", "of time and people", "a", "sentence number through " * 10]
LONG = ["water people number " * 60, "a", "the time"]
PROMPTS = {"query": "query: ", "document": "document: ", "match": ""}

# Each way of asking: it must neither take another one's results nor differ from a first time.
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt": {"prompt_name": "query"},
    "other prompt": {"prompt_name": "document"},
    "prompt of the caller's": {"prompt": "the "},
    "adapter": {"prompt_name": "match"},
    "dimensions": {"dimensions": 8},
    "other dimensions": {"dimensions": 16, "normalize": False},
    "not normalized": {"normalize": False},
    "cut at the start": {"truncate": "START", "max_tokens": 4},
    "cut": {"max_tokens": 4},
    "no special tokens": {"add_special_tokens": False},
    "pieces": {"inputs": LONG, "chunk": True},
    "pieces that are cut": {"inputs": LONG, "chunk": True, "dimensions": 8, "max_tokens": 150},
    "late chunking": {"late_chunking": True},
    "tokens": {"task": "token_embed"},
}


@pytest.fixture
def folder(dummy_bundle: MakeBundle) -> Path:
    return dummy_bundle(
        prompts=PROMPTS,
        adapters=("match",),
        pooling=Pooling(modes=("mean",), include_prompt=True),
    )


def ask(runtime: Runtime, options: dict[str, Any]) -> EmbedResult:
    given: dict[str, Any] = {"inputs": TEXTS, **options}
    return runtime.submit(EmbedRequest(**given)).result(SECONDS)


def assert_equal(one: EmbedResult, other: EmbedResult) -> None:
    assert np.array_equal(one.vectors, other.vectors)
    assert np.array_equal(one.offsets, other.offsets)
    assert np.array_equal(one.num_tokens, other.num_tokens)
    if one.token_ids is None:
        assert other.token_ids is None
    else:
        assert other.token_ids is not None
        assert np.array_equal(one.token_ids, other.token_ids)


@pytest.mark.parametrize("is_included", [True, False], ids=["", "prompt-not-pooled"])
def test_every_request_is_answered_as_without_a_cache(
    dummy_bundle: MakeBundle, is_included: bool
) -> None:
    pooling = Pooling(modes=("mean",), include_prompt=is_included)
    folder = dummy_bundle(prompts=PROMPTS, adapters=("match",), pooling=pooling)
    requests = {
        name: options
        for name, options in REQUESTS.items()
        if is_included or "late_chunking" not in options
    }
    with Runtime(folder) as plain, Runtime(folder, config=CACHED) as cached:
        expected = {name: ask(plain, options) for name, options in requests.items()}
        for _ in range(2):
            for name, options in requests.items():
                assert_equal(ask(cached, options), expected[name])
        before = cached.stats()
        for name, options in requests.items():
            if name not in ("late chunking", "tokens"):
                assert_equal(ask(cached, options), expected[name])
        after = cached.stats()
        assert after.batches == before.batches
        assert after.cache.misses == before.cache.misses
        assert after.cache.hits > before.cache.hits
        assert plain.stats().cache.hits == plain.stats().cache.misses == 0


@pytest.mark.parametrize("kind", ["splade", "token_weights"])
def test_sparse_weights_too(sparse_bundle: MakeSparse, kind: str) -> None:
    with Runtime(sparse_bundle(kind), config=CACHED) as runtime:
        first = ask(runtime, {"task": "sparse"})
        batches = runtime.stats().batches
        assert_equal(ask(runtime, {"task": "sparse"}), first)
        assert runtime.stats().batches == batches


@pytest.fixture
def runtime(folder: Path) -> Iterator[Runtime]:
    with Runtime(folder, config=CACHED) as opened:
        yield opened


def test_many_texts_in_windows(runtime: Runtime, folder: Path) -> None:
    texts = [f"number {i % 170} of people" for i in range(700)]
    with Runtime(folder) as plain:
        expected = plain.embed(texts)
    assert np.array_equal(runtime.embed(texts), expected)
    rows = runtime.stats().rows
    assert 170 <= rows < 700
    assert np.array_equal(runtime.embed(iter(texts)), expected)
    assert np.array_equal(asyncio.run(runtime.aembed(texts)), expected)
    some_new = asyncio.run(runtime.aembed([*texts, "a new one"]))
    assert np.array_equal(some_new[:-1], expected)
    assert runtime.stats().rows == rows + 1


def test_a_text_and_its_ids_are_the_same(runtime: Runtime) -> None:
    request = EmbedRequest(inputs=["the water"])
    vector = runtime.embed("the water")
    ids = runtime.tokenizer.encode(request)[0].input_ids.tolist()
    assert np.array_equal(runtime.embed([ids])[0], vector)
    assert runtime.stats().batches == 1


def test_scores_find_their_sides_again(runtime: Runtime) -> None:
    first = runtime.score("the water", TEXTS)
    batches = runtime.stats().batches
    assert np.array_equal(runtime.score("the water", TEXTS), first)
    assert runtime.stats().batches == batches


def test_wrong_requests_are_refused_and_a_closed_runtime_answers_nothing(folder: Path) -> None:
    runtime = Runtime(folder, config=CACHED)
    runtime.embed("a")
    with pytest.raises(InputError, match="dimensions=99"):
        runtime.embed("a", dimensions=99)
    runtime.close()
    with pytest.raises(ClosedError):
        runtime.embed("a")
    with pytest.raises(ClosedError):
        asyncio.run(runtime.aembed("a"))


def test_is_off_unless_asked_for(folder: Path) -> None:
    with Runtime(folder) as runtime:
        runtime.embed("a")
        runtime.embed("a")
        assert runtime.stats().batches == 2
        assert runtime.stats().cache.entries == 0


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InputError, match="max_cache_bytes=-1 must be at least 0") as caught:
        RuntimeConfig(max_cache_bytes=-1)
    assert caught.value.param == "max_cache_bytes"


def test_a_size_with_room_for_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"max_cache_bytes=100 has no room.* at least \d+"
    ) as caught:
        Runtime(folder, config=RuntimeConfig(max_cache_bytes=100))
    assert caught.value.param == "max_cache_bytes"
    smallest = int(str(caught.value).partition("at least ")[2].split()[0])
    with Runtime(folder, config=RuntimeConfig(max_cache_bytes=smallest)) as runtime:
        item = EmbedRequest(inputs=[[5]])
        runtime.submit(item).result(SECONDS)
        assert runtime.stats().cache.entries == 1
