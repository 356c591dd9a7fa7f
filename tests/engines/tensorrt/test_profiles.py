"""Optimization profiles: what they cover, and how batches are dealt out to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_runtime.engines._tensorrt_profiles import (
    SLOTS_PER_TOKEN,
    Shape,
    choose_profile,
    max_batch_tokens,
    plan_profiles,
    split,
)
from embed_runtime.errors import EngineError
from embed_runtime.types import Batch


def make_batch(lengths: list[int]) -> Batch:
    return Batch(
        input_ids=np.arange(sum(lengths), dtype=np.int32),
        cu_seqlens=np.cumsum([0, *lengths]).astype(np.int32),
        num_skipped=np.arange(len(lengths), dtype=np.int32),
        adapters=np.arange(len(lengths), dtype=np.int32),
        outputs=("pooled",),
    )


@given(max_tokens=st.integers(1, 40_000))
def test_profiles_are_sane_for_every_model(max_tokens: int) -> None:
    profiles = plan_profiles(max_tokens)
    budget = max_batch_tokens(max_tokens)
    assert budget >= max_tokens
    assert 2 <= len(profiles) <= 4
    for profile in profiles:
        assert profile.min == Shape(num_tokens=1, num_rows=1, longest=1)
        assert profile.min.fits(profile.opt)
        assert profile.opt.fits(profile.max)
        # Tokens of the shape that is tuned for do fit its slots.
        assert profile.opt.num_tokens <= profile.opt.num_slots
        assert profile.max.longest <= max_tokens
        assert profile.max.num_tokens <= budget
        # Activations around attention are bounded.
        assert profile.max.num_slots <= max(SLOTS_PER_TOKEN * budget, 4 * max_tokens)


@given(max_tokens=st.integers(1, 5000), data=st.data())
def test_every_batch_in_the_budget_is_dealt_out_whole_and_in_order(
    max_tokens: int, data: st.DataObject
) -> None:
    limits = [profile.max for profile in plan_profiles(max_tokens)]
    lengths = data.draw(st.lists(st.integers(1, max_tokens), min_size=1, max_size=200))
    while sum(lengths) > max_batch_tokens(max_tokens):
        lengths.pop()
    batch = make_batch(lengths)
    parts = list(split(batch, limits))
    for profile, part in parts:
        assert Shape.of(part).fits(limits[profile])
        assert part.cu_seqlens[0] == 0
        assert part.outputs == ("pooled",)
    assert [length for _, part in parts for length in part.lengths.tolist()] == lengths
    for name in ("input_ids", "num_skipped"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(part, name) for _, part in parts]), getattr(batch, name)
        )


def test_a_sorted_batch_of_real_lengths_is_not_split() -> None:
    lengths = np.sort(np.random.default_rng(0).lognormal(4, 0.8, 5000).clip(1, 512).astype(int))
    limits = [profile.max for profile in plan_profiles(512)]
    start = 0
    while start < len(lengths):
        stop = start + int(np.searchsorted(lengths[start:].cumsum(), 16384, side="right"))
        batch = make_batch(lengths[start:stop].tolist())
        assert len(list(split(batch, limits))) <= 2
        start = stop


@pytest.mark.parametrize(
    ("lengths", "profile"),
    [
        ([1], 0),
        ([512], 0),
        ([20, 30, 40, 50], 0),
        ([20] * 5, 1),
        ([64] * 256, 1),
        ([65] * 5, 2),
        ([257] * 5, 3),
        ([512] * 32, 3),
        ([512] * 2, 3),
    ],
)
def test_a_batch_gets_the_first_profile_that_takes_it(lengths: list[int], profile: int) -> None:
    limits = [one.max for one in plan_profiles(512)]
    assert choose_profile(Shape.of(make_batch(lengths)), limits) == profile


def test_padding_beyond_all_profiles_splits_a_batch() -> None:
    limits = [profile.max for profile in plan_profiles(512)]
    batch = make_batch([1] * 100 + [512])  # 51,712 slots for 612 tokens
    parts = [part.num_rows for _, part in split(batch, limits)]
    assert parts == [50, 51]


def test_a_row_beyond_all_profiles_is_an_error() -> None:
    limits = [profile.max for profile in plan_profiles(512)]
    with pytest.raises(EngineError, match="a row of 513 tokens"):
        list(split(make_batch([5, 513]), limits))
