"""Batches to graph inputs: the vectorized functions against the definition, row by row."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from embed_runtime.dialects import (
    packed_input_names,
    packed_inputs,
    padded_inputs,
    round_up,
)
from embed_runtime.manifest import (
    Dimensions,
    Manifest,
    Model,
    Pooling,
    Positions,
    TokenizerSpec,
)
from embed_runtime.types import Batch

PAD = 1
Arrays = dict[str, npt.NDArray[Any]]
# (ids, how many of them are skipped in pooling) for each row.
Rows = list[tuple[list[int], int]]


def make_manifest(positions: Positions, *, include_prompt: bool) -> Manifest:
    return Manifest(
        schema_version=1,
        model=Model(id="a", architecture="b", model_type="c"),
        precision="fp32",
        pooling=Pooling(modes=("mean",), include_prompt=include_prompt),
        normalize=True,
        dimensions=Dimensions(native=4),
        max_tokens=64,
        hidden_size=4,
        num_layers=1,
        tokenizer=TokenizerSpec(vocab_size=9, pad_token_id=PAD),
        positions=positions,
        outputs=("embedding",),
        graphs=(),
        engines=(),
        versions={},
        files={},
    )


def make_batch(rows: Rows) -> Batch:
    return Batch(
        input_ids=np.array([one for ids, _ in rows for one in ids], np.int32),
        cu_seqlens=np.cumsum([0, *(len(ids) for ids, _ in rows)]).astype(np.int32),
        num_skipped=np.array([skipped for _, skipped in rows], np.int32),
        adapters=np.full(len(rows), -1, np.int32),
    )


def packed_by_hand(rows: Rows, manifest: Manifest) -> Arrays:
    num_rows, longest = len(rows), max(len(ids) for ids, _ in rows)
    input_ids: list[int] = []
    position_ids: list[int] = []
    unpad_index: list[int] = []
    pad_index = np.zeros((num_rows, longest), np.int64)
    attention_mask = np.zeros((num_rows, longest), np.float32)
    pool_mask = np.zeros((num_rows, longest), np.float32)
    for row, (ids, num_skipped) in enumerate(rows):
        next_position = manifest.positions.offset
        for slot, token in enumerate(ids):
            pad_index[row, slot] = len(input_ids)
            attention_mask[row, slot] = 1
            pool_mask[row, slot] = slot >= num_skipped
            unpad_index.append(row * longest + slot)
            input_ids.append(token)
            if token == manifest.positions.skip_id:
                position_ids.append(manifest.positions.offset - 1)
            else:
                position_ids.append(next_position)
                next_position += 1
    arrays: Arrays = {
        "input_ids": np.array(input_ids, np.int64),
        "position_ids": np.array(position_ids, np.int64),
        "pad_index": pad_index,
        "unpad_index": np.array(unpad_index, np.int64),
        "attention_mask": attention_mask,
    }
    return arrays if manifest.pooling.include_prompt else {**arrays, "pool_mask": pool_mask}


def padded_by_hand(rows: Rows, manifest: Manifest) -> Arrays:
    packed = packed_by_hand(rows, manifest)
    input_ids = np.full(packed["pad_index"].shape, PAD, np.int64)
    for row, (ids, _) in enumerate(rows):
        input_ids[row, : len(ids)] = ids
    arrays: Arrays = {
        "input_ids": input_ids,
        "attention_mask": packed["attention_mask"].astype(np.int64),
    }
    return (
        arrays if manifest.pooling.include_prompt else {**arrays, "pool_mask": packed["pool_mask"]}
    )


def check_same(made: Arrays, expected: Arrays) -> None:
    assert made.keys() == expected.keys()
    for name, array in expected.items():
        assert made[name].dtype == array.dtype, name
        np.testing.assert_array_equal(made[name], array, err_msg=name)


one_row = st.lists(st.integers(0, 8), min_size=1, max_size=12).flatmap(
    lambda ids: st.tuples(st.just(ids), st.integers(0, len(ids) - 1))
)
some_positions = st.sampled_from(
    [Positions(), Positions(offset=2), Positions(offset=PAD + 1, skip_id=PAD)]
)


@given(
    rows=st.lists(one_row, min_size=1, max_size=8), positions=some_positions, prompt=st.booleans()
)
def test_inputs_equal_those_made_by_hand(rows: Rows, positions: Positions, prompt: bool) -> None:
    manifest = make_manifest(positions, include_prompt=prompt)
    batch = make_batch(rows)
    packed = dict(packed_inputs(batch, manifest))
    check_same(packed, packed_by_hand(rows, manifest))
    check_same(dict(padded_inputs(batch, manifest)), padded_by_hand(rows, manifest))
    assert packed.keys() == packed_input_names(manifest)


def test_a_padding_token_spelled_out_in_a_text_takes_no_position() -> None:
    """RoBERTa's rule (transformers, `create_position_ids_from_input_ids`), on a known example."""
    manifest = make_manifest(Positions(offset=PAD + 1, skip_id=PAD), include_prompt=True)
    made = packed_inputs(make_batch([([0, 5, PAD, PAD, 6], 0), ([PAD, 7], 0)]), manifest)
    assert made["position_ids"].tolist() == [2, 3, 1, 1, 4, 1, 2]


def test_adapters_are_said_for_each_token_where_tokens_are_packed() -> None:
    manifest = make_manifest(Positions(), include_prompt=True)
    manifest = msgspec.structs.replace(manifest, adapters=("query", "passage"))
    batch = make_batch([([3, 4, 5], 0), ([6], 0), ([7, 8], 0)])
    batch = replace(batch, adapters=np.array([1, -1, 0], np.int32))
    packed, padded = packed_inputs(batch, manifest), padded_inputs(batch, manifest)
    assert packed["adapter_ids"].tolist() == [1, 1, 1, -1, 0, 0]
    assert padded["adapter_ids"].tolist() == [1, -1, 0]
    assert {one["adapter_ids"].dtype for one in (packed, padded)} == {np.dtype(np.int64)}
    assert packed.keys() == packed_input_names(manifest)


@given(
    rows=st.lists(one_row, min_size=1, max_size=8),
    factor=st.sampled_from([1, 9, 40]),
    prompt=st.booleans(),
)
def test_rounder_sizes_hold_the_same_rows(rows: Rows, factor: int, prompt: bool) -> None:
    manifest = make_manifest(Positions(), include_prompt=prompt)
    manifest = msgspec.structs.replace(manifest, adapters=("query",))
    batch = make_batch([(ids * factor, skipped) for ids, skipped in rows])
    exact = packed_inputs(batch, manifest)
    made = round_up(exact)
    num_tokens, (num_rows, num_slots) = batch.num_tokens, exact["pad_index"].shape
    more_tokens, more_slots = len(made["input_ids"]), made["pad_index"].shape[1]
    assert num_tokens <= more_tokens <= num_tokens * 17 / 16
    assert num_slots <= more_slots <= num_slots * 9 / 8
    assert made.keys() == exact.keys()
    for name, array in made.items():
        assert array.dtype == exact[name].dtype, name
        assert array.shape == ((num_rows, more_slots) if array.ndim == 2 else (more_tokens,)), name
        if array.ndim == 2:
            np.testing.assert_array_equal(array[:, :num_slots], exact[name])
            assert not array[:, num_slots:].any()
        elif name != "unpad_index":
            np.testing.assert_array_equal(array[:num_tokens], exact[name])
    # Every token finds its own slot again.
    slots = made["unpad_index"][:num_tokens].astype(np.int64)
    found = np.take(made["pad_index"], slots).tolist()
    assert found == list(range(num_tokens))


def test_few_sizes_are_left() -> None:
    manifest = make_manifest(Positions(), include_prompt=True)
    sizes = {
        len(round_up(packed_inputs(make_batch([([3] * length, 0)]), manifest))["input_ids"])
        for length in range(900, 1025)
    }
    assert sizes == {928, 960, 992, 1024}


def test_the_batch_is_not_written_to() -> None:
    batch = make_batch([([3, 4], 0), ([5], 0)])
    batch.input_ids.flags.writeable = False
    made = packed_inputs(batch, make_manifest(Positions(), include_prompt=True))
    made["input_ids"][:] = 0
    assert batch.input_ids.tolist() == [3, 4, 5]
