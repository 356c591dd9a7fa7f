"""A thread more for small requests, while large batches keep all streams busy."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from embed_runtime import EngineError
from embed_runtime.batching import Limits
from embed_runtime.engines.dummy import DummyEngine, Fault
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import Batch, FloatArray, OutputName

SECONDS = 30
POISON = 666

Outputs = dict[OutputName, FloatArray]
Submit = Callable[..., Job]
Alone = Callable[..., FloatArray]
Until = Callable[[Callable[[], bool]], None]
FailsOn = Callable[[int], Fault]


@pytest.fixture
def engine(gate: Any, fails_on: FailsOn) -> DummyEngine:
    def hold_up_or_fail(batch: Batch, outputs: Outputs) -> None:
        gate(batch, outputs)
        fails_on(POISON)(batch, outputs)

    engine = DummyEngine(dimensions=8, hidden_size=4, normalize=True, fault=hold_up_or_fail)
    engine.num_streams = 2
    engine.run_express = engine.run
    return engine


@pytest.fixture
def scheduler(gate: Any, engine: DummyEngine) -> Iterator[Scheduler]:
    scheduler = Scheduler(
        engine,
        limits=Limits(max_tokens=100, max_padding=1 << 60),
        max_queue_tokens=1 << 40,
    )
    yield scheduler
    gate.open(1000)
    scheduler.close(drain=False)


# Several times, for it is a race with the thread that prepares a batch ahead.
@pytest.mark.parametrize("_", range(20))
def test_small_requests_pass_large_batches(
    _: int, gate: Any, submit: Submit, alone: Alone, scheduler: Scheduler
) -> None:
    bulk = submit(scheduler, *range(40), length=10)
    gate.wait_for_batch()
    gate.wait_for_batch()
    query = submit(scheduler, 7, length=3)
    batch = gate.wait_for_batch()
    assert batch.lengths.tolist() == [3]
    assert not bulk.done()
    gate.open(1000)
    np.testing.assert_array_equal(query.result(SECONDS).vectors, alone(7, length=3))
    np.testing.assert_array_equal(bulk.result(SECONDS).vectors, alone(*range(40), length=10))


def test_large_batches_never_do(
    gate: Any, submit: Submit, until: Until, scheduler: Scheduler
) -> None:
    submit(scheduler, *range(80), length=10)
    for _ in range(2):
        gate.wait_for_batch()
    until(lambda: scheduler.stats().running_inputs == 30)  # the third one is made, and waits
    assert len(gate.batches) == 2


def test_what_waits_for_a_small_batch_waits(
    gate: Any, submit: Submit, scheduler: Scheduler
) -> None:
    submit(scheduler, 1, length=3)
    gate.wait_for_batch()
    submit(scheduler, *range(20), length=10)
    gate.wait_for_batch()
    late = submit(scheduler, 2, length=3)
    assert len(gate.batches) == 2
    gate.open(1000)
    late.result(SECONDS)
    assert any(3 in batch.lengths for batch in gate.batches[2:])


def test_a_query_goes_the_usual_way_where_its_own_fails(
    gate: Any, submit: Submit, alone: Alone, engine: DummyEngine, scheduler: Scheduler
) -> None:
    def fail(_: Batch) -> Outputs:
        raise EngineError("no memory for another graph")

    engine.run_express = fail
    submit(scheduler, *range(40), length=10)
    for _ in range(2):
        gate.wait_for_batch()
    query = submit(scheduler, 7, length=3)
    gate.open(1000)
    np.testing.assert_array_equal(query.result(SECONDS).vectors, alone(7, length=3))


def test_a_small_request_that_fails_fails_alone(
    gate: Any, submit: Submit, scheduler: Scheduler
) -> None:
    bulk = submit(scheduler, *range(40), length=10)
    for _ in range(2):
        gate.wait_for_batch()
    queries = [submit(scheduler, content, length=3) for content in (POISON, 7)]
    gate.open(1000)
    with pytest.raises(EngineError, match="cannot digest this"):
        queries[0].result(SECONDS)
    queries[1].result(SECONDS)
    bulk.result(SECONDS)
