"""Sparse weights and token heads, from the request to the answer, on the dummy engine."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_runtime import BundleError, EmbedRequest, InputError, Runtime
from embed_runtime.bundle import read_manifest
from embed_runtime.manifest import Dense, Dimensions, Pooling, Sparse, TokenHead
from embed_runtime.sparse import to_sparse

MakeSparse = Callable[..., Path]

TEXTS = ["the water", "people", "the way of the water", "a", "the water"]
KINDS = ["splade", "token_weights"]


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_of_a_bundle(sparse_bundle: MakeSparse, kind: str) -> None:
    assert read_manifest(sparse_bundle(kind)).tasks == ("embed", "token_embed", "sparse")


def test_a_bundle_without_a_sparse_head_says_so(dummy_bundle: MakeSparse) -> None:
    with Runtime(dummy_bundle()) as runtime:
        assert runtime.manifest.tasks == ("embed", "token_embed")
        with pytest.raises(InputError, match=r"'sparse' is not what .*: embed, token_embed;") as no:
            runtime.encode("a", task="sparse")
        assert no.value.param == "task"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_positive_sorted_and_the_same_in_any_company(
    sparse_bundle: MakeSparse, kind: str
) -> None:
    with Runtime(sparse_bundle(kind)) as runtime:
        together = runtime.encode(TEXTS, task="sparse")
        alone = [runtime.encode(text, task="sparse")[0] for text in TEXTS]
        backwards = runtime.encode(TEXTS[::-1], task="sparse")[::-1]
    assert together == alone == backwards
    assert any(output.data for output in together)
    for output in together:
        assert list(output.data) == sorted(output.data)
        assert min(output.data.values(), default=1) > 0
    assert [output.num_tokens for output in together] == [4, 3, 7, 3, 4]


def test_splade_weights_are_the_embedding_without_its_zeros(sparse_bundle: MakeSparse) -> None:
    with Runtime(sparse_bundle("splade")) as runtime:
        dense = runtime.embed(TEXTS)
        for row, output in zip(dense, runtime.encode(TEXTS, task="sparse"), strict=True):
            assert output.data == {int(i): float(row[i]) for i in np.flatnonzero(row)}
            assert 0 < len(output.data) < len(row) / 10


def test_token_weights_are_those_of_the_texts_own_words(sparse_bundle: MakeSparse) -> None:
    with Runtime(sparse_bundle("token_weights")) as runtime:
        [output] = runtime.encode("the way of the water", task="sparse")
        [item] = runtime.tokenizer.encode(EmbedRequest(inputs=["the way of the water"]))
        assert set(output.data) <= set(item.input_ids[1:-1].tolist())
        assert not set(output.data) & {0, 1, 2, 3}


def test_a_result_is_compressed_rows(sparse_bundle: MakeSparse) -> None:
    with Runtime(sparse_bundle("splade")) as runtime:
        result = runtime.submit(EmbedRequest(inputs=TEXTS, task="sparse")).result()
        outputs = runtime.encode(TEXTS, task="sparse")
    assert result.token_ids is not None
    assert (result.token_ids.dtype.name, result.vectors.dtype.name) == ("int32", "float32")
    assert result.token_ids.shape == result.vectors.shape == (result.offsets[-1],)
    assert np.diff(result.offsets).tolist() == [len(output.data) for output in outputs]


@pytest.mark.parametrize(
    ("options", "param"), [({"dimensions": 8}, "dimensions"), ({"normalize": True}, "normalize")]
)
def test_weights_are_neither_cut_nor_normalized(
    sparse_bundle: MakeSparse, options: dict[str, Any], param: str
) -> None:
    request = EmbedRequest(inputs=["a"], task="sparse", **options)
    with Runtime(sparse_bundle("splade")) as runtime, pytest.raises(InputError) as caught:
        runtime.submit(request)
    assert caught.value.param == param


class TestTokenHead:
    def test_first_tokens_are_left_out_and_lengths_are_one(self, sparse_bundle: MakeSparse) -> None:
        with Runtime(sparse_bundle("token_weights")) as runtime:
            whole = runtime.encode(TEXTS, task="token_embed", normalize=False)
            outputs = runtime.encode(TEXTS, task="token_embed")
        for output, raw in zip(outputs, whole, strict=True):
            assert output.data.shape == raw.data.shape == (output.num_tokens - 1, 8)
            lengths = np.linalg.norm(raw.data, axis=1, keepdims=True)
            assert np.abs(output.data - raw.data / lengths).max() < 1e-6
        assert np.array_equal(outputs[0].data, outputs[4].data)

    def test_an_input_of_dropped_tokens_only_has_no_vectors(
        self, sparse_bundle: MakeSparse
    ) -> None:
        with Runtime(sparse_bundle("token_weights")) as runtime:
            first, second = runtime.encode([[7], [7, 8]], task="token_embed")
        assert (first.data.shape, second.data.shape) == ((0, 8), (1, 8))


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-1, 1, width=32)), min_size=1))
def test_an_id_gets_the_largest_weight_of_its_tokens(tokens: list[tuple[int, float]]) -> None:
    expected: dict[int, float] = {}
    for token_id, weight in tokens:
        if weight > 0 and token_id not in (3, 4):
            expected[token_id] = max(weight, expected.get(token_id, 0))
    ids = np.array([token_id for token_id, _ in tokens], np.int32)
    values = np.array([[weight] for _, weight in tokens], np.float32)
    found = to_sparse(values, ids, Sparse(output="token_weights", skipped_ids=(3, 4)))
    assert dict(zip(found[0].tolist(), found[1].tolist(), strict=True)) == expected
    assert found[0].tolist() == sorted(expected)


VECTORS = ("embedding", "pooled", "token_embeddings")


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("splade", {"dimensions": Dimensions(native=32)}, "native is 32, but sparse weighs"),
        (
            "splade",
            {"dimensions": Dimensions(native=386, matryoshka=())},
            "matryoshka is set, but weights of the vocabulary",
        ),
        ("splade", {"normalize": True}, "normalize is set"),
        ("splade", {"pooling": Pooling(modes=("max",))}, "pooling.modes is set"),
        (
            "splade",
            {"heads": (Dense(in_features=32, out_features=8, bias=True, activation="tanh"),)},
            "heads is set",
        ),
        ("splade", {"sparse": Sparse(output="embedding")}, "sparse.pooling belongs to"),
        ("splade", {"outputs": (*VECTORS, "token_weights")}, "'token_weights' must be the output"),
        (
            "splade",
            {"sparse": Sparse(output="embedding", pooling="sum", skipped_ids=(-1,))},
            "skipped_ids has -1, outside the vocabulary",
        ),
        ("token_weights", {"outputs": VECTORS}, "'token_weights' must be the output of sparse"),
        ("token_weights", {"sparse": None}, "'token_weights' must be the output of sparse"),
        (
            "token_weights",
            {"sparse": Sparse(output="token_weights", pooling="max")},
            "sparse.pooling belongs to",
        ),
        (
            "token_weights",
            {"sparse": Sparse(output="token_weights", skipped_ids=(10**9,))},
            "skipped_ids has 1000000000, outside",
        ),
        (
            "token_weights",
            {"token_head": TokenHead(dimensions=0, normalize=True, num_dropped=1)},
            "token_head.dimensions is 0",
        ),
        (
            "token_weights",
            {"token_head": TokenHead(dimensions=8, normalize=True, num_dropped=-1)},
            "token_head.num_dropped is -1",
        ),
        (
            "token_weights",
            {"outputs": ("embedding", "token_weights")},
            "token_head describes 'token_embeddings', which outputs lack",
        ),
    ],
)
def test_manifests_that_contradict_themselves(
    sparse_bundle: MakeSparse, kind: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleError, match=re.escape(words)):
        sparse_bundle(kind, **fields)
