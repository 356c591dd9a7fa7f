"""The result cache by itself: its bounds, what goes first, and that nobody can change it."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embed_runtime.batching import Row
from embed_runtime.jobs import Job, Target
from embed_runtime.plan import Plan
from embed_runtime.result_cache import ResultCache
from embed_runtime.types import FloatArray, OutputName, TokenizedInput

SECONDS = 30
DIMENSIONS = 16
# An entry of 4 token ids and a vector of 16 takes between 400 and 600 bytes.
LEAST, MOST = 400, 600


def item_of(content: int, length: int = 4) -> TokenizedInput:
    return TokenizedInput(input_ids=np.full(length, content, np.int32))


def row_of(
    item: TokenizedInput, output: OutputName = "embedding", *, use_cache: bool = True
) -> Row[Target]:
    job = Job([item], Plan(output=output, use_cache=use_cache))
    return Row(item, output, [(job, 0)])


def keep(
    cache: ResultCache, content: int, *, length: int = 4, dimensions: int = DIMENSIONS
) -> None:
    cache.add(row_of(item_of(content, length)), vector_of(content, dimensions))


def vector_of(content: int, dimensions: int = DIMENSIONS) -> FloatArray:
    return np.full((1, dimensions), content, np.float32)


def look_up(cache: ResultCache, *contents: int) -> list[int]:
    """Ask for contents one by one; give those that are known, after a look at their vectors."""
    known: list[int] = []
    for content in contents:
        job = Job([item_of(content)], Plan(output="embedding"))
        if not cache.answer(job):
            job.settle()
            assert np.array_equal(job.result(SECONDS).vectors, vector_of(content))
            known.append(content)
    return known


def test_least_recently_used_goes_first() -> None:
    cache = ResultCache(3 * MOST)
    for content in (1, 2, 3):
        keep(cache, content)
    assert look_up(cache, 1) == [1]
    keep(cache, 4)
    assert cache.stats().entries == 3
    assert look_up(cache, 1, 2, 3, 4) == [1, 3, 4]


def test_counts_what_was_asked_for() -> None:
    cache = ResultCache(10 * MOST)
    keep(cache, 1)
    job = Job([item_of(1), item_of(2), item_of(1), item_of(3)], Plan(output="embedding"))
    assert cache.answer(job) == [1, 3]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 2, 1)
    assert LEAST < stats.num_bytes < MOST


def test_what_is_larger_than_all_of_it_pushes_nothing_out() -> None:
    cache = ResultCache(2 * MOST)
    keep(cache, 1)
    keep(cache, 2, dimensions=1000)
    keep(cache, 3, length=1000)
    assert look_up(cache, 1, 2, 3) == [1]
    assert cache.stats().entries == 1


@pytest.mark.parametrize(("length", "dimensions"), [(4, 4), (60, 100), (400, 1)])
def test_takes_no_more_memory_than_it_may(length: int, dimensions: int) -> None:
    limit = 4_000_000
    tracemalloc.start()
    cache = ResultCache(limit)
    most, content = 0, 0
    # Until the table has grown, and was cleaned of what went, several times.
    while content < 4 * cache.stats().entries or not content:
        for _ in range(1000):
            keep(cache, content, length=length, dimensions=dimensions)
            content += 1
        most = max(most, tracemalloc.get_traced_memory()[0])
        assert cache.stats().num_bytes <= limit
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.6 * limit < most <= peak <= limit


def test_the_first_result_stays() -> None:
    cache = ResultCache(10 * MOST)
    keep(cache, 1)
    cache.add(row_of(item_of(1)), vector_of(2))
    assert look_up(cache, 1) == [1]
    assert cache.stats().entries == 1


def test_keeps_a_copy_that_nobody_can_write_to() -> None:
    given: list[FloatArray] = []

    class Greedy:
        """A gathering that keeps what it gets, which none may."""

        def receive(self, _: int, values: FloatArray, __: object, /) -> None:
            given.append(values)

    cache = ResultCache(10 * MOST)
    batch = np.vstack([vector_of(1), vector_of(2)])
    cache.add(row_of(item_of(1)), batch[:1])
    batch[:] = 0
    job = Job([item_of(1)], Plan(output="embedding"), gathering=Greedy())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache.answer(job)
    with pytest.raises(ValueError, match="read-only"):
        given[0][:] = 0
    assert look_up(cache, 1) == [1]


def test_lack_of_memory_keeps_nothing_and_harms_nobody() -> None:
    class Large:
        def tobytes(self) -> bytes:
            raise MemoryError

    cache = ResultCache(10 * MOST)
    cache.add(row_of(item_of(1)), Large())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert cache.stats().entries == 0


def test_inputs_that_differ_in_anything_do_not_meet() -> None:
    cache = ResultCache(100 * MOST)
    ids = np.full(4, 1, np.int32)
    outputs: tuple[OutputName, ...] = ("embedding", "pooled")
    variants: list[tuple[TokenizedInput, OutputName]] = [
        (TokenizedInput(input_ids=ids[:length], num_skipped=skipped, adapter=adapter), output)
        for length in (3, 4)
        for skipped in (0, 1)
        for adapter in (-1, 0)
        for output in outputs
    ]
    for number, (item, output) in enumerate(variants):
        cache.add(row_of(item, output), vector_of(number))
    for number, (item, output) in enumerate(variants):
        job = Job([item], Plan(output=output))
        assert not cache.answer(job)
        job.settle()
        assert np.array_equal(job.result(SECONDS).vectors, vector_of(number))


def test_threads_at_once() -> None:
    cache = ResultCache(20 * MOST)
    together = threading.Barrier(4)

    def use(seed: int) -> int:
        contents = np.random.default_rng(seed).integers(60, size=2000).tolist()
        together.wait(SECONDS)
        for content in contents:
            look_up(cache, content)
            keep(cache, content)
        return len(contents)

    with ThreadPoolExecutor(4) as pool:
        num_lookups = sum(pool.map(use, range(4)))
    stats = cache.stats()
    assert stats.hits + stats.misses == num_lookups
    assert stats.hits > 0
    assert 0 < stats.num_bytes <= 20 * MOST
    assert sum(len(look_up(cache, content)) for content in range(60)) == stats.entries


def test_requests_that_want_no_cache_neither_take_nor_leave_anything() -> None:
    cache = ResultCache(10 * MOST)
    private = row_of(item_of(1), use_cache=False)
    cache.add(private, vector_of(1))
    assert look_up(cache, 1) == []
    # It met another one's input: what was computed for both is that one's to keep.
    shared = Row(item_of(1), "embedding", [*private.targets, *row_of(item_of(1)).targets])
    cache.add(shared, vector_of(1))
    assert look_up(cache, 1) == [1]
    before = cache.stats()
    assert len(cache.answer(private.targets[0][0])) == 1
    assert cache.stats() == before
