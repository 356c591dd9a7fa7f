"""The dummy engine: deterministic, and blind to everything but a row's own ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_runtime.batching import Row, collate
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.types import Batch, FloatArray, OutputName, TokenizedInput

OUTPUTS: tuple[OutputName, ...] = ("embedding", "pooled", "token_embeddings")
ROW = st.lists(st.integers(0, 500), min_size=1, max_size=12)


def batch_of(*rows: list[int], num_skipped: int = 0) -> Batch:
    items = [
        TokenizedInput(input_ids=np.array(row, np.int32), num_skipped=num_skipped) for row in rows
    ]
    return collate([Row(item, output, [None]) for item in items for output in OUTPUTS])


def run(batch: Batch, *, normalize: bool = True) -> dict[OutputName, FloatArray]:
    return DummyEngine(dimensions=16, hidden_size=4, normalize=normalize).run(batch)


@given(st.lists(ROW, min_size=1, max_size=6))
def test_rows_do_not_see_their_neighbours(rows: list[list[int]]) -> None:
    outputs = run(batch_of(*rows))
    for index, row in enumerate(rows):
        alone = run(batch_of(row))
        own = slice(3 * index, 3 * index + 3)
        assert np.array_equal(outputs["embedding"][own], alone["embedding"])
        assert np.array_equal(outputs["pooled"][own], alone["pooled"])


@given(ROW, ROW)
def test_different_rows_differ(one: list[int], other: list[int]) -> None:
    similarity = run(batch_of(one, other))["embedding"]
    assert (similarity[0] @ similarity[3] > 0.999) == (one == other)


def test_order_counts() -> None:
    vectors = run(batch_of([1, 2], [2, 1]))["embedding"]
    assert vectors[0] @ vectors[3] < 0.9


@pytest.mark.parametrize("normalize", [True, False])
def test_lengths(normalize: bool) -> None:
    outputs = run(batch_of([1, 2], [3]), normalize=normalize)
    assert np.array_equal(outputs["embedding"], outputs["pooled"]) == (not normalize)
    norms = np.linalg.norm(outputs["embedding"], axis=1)
    assert np.allclose(norms, 1, atol=1e-6) == normalize


def test_skipped_tokens_do_not_count() -> None:
    one = run(batch_of([7, 1, 2], num_skipped=1))["embedding"]
    other = run(batch_of([8, 1, 2], num_skipped=1))["embedding"]
    assert np.array_equal(one, other)


def test_shapes_and_only_what_was_asked() -> None:
    outputs = run(batch_of([1, 2], [3]))
    assert [outputs[name].shape for name in OUTPUTS] == [(6, 16), (6, 16), (9, 4)]
    assert all(outputs[name].dtype == np.float32 for name in OUTPUTS)
    item = TokenizedInput(input_ids=np.array([1], np.int32))
    assert set(run(collate([Row(item, "pooled", [None])]))) == {"pooled"}
