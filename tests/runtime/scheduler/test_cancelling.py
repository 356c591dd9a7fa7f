"""What becomes of the work of a cancelled job."""

from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from typing import Any

import numpy as np
import pytest

from embed_runtime import EngineError
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import FloatArray

SECONDS = 30

Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
Alone = Callable[..., FloatArray]
Until = Callable[[Callable[[], bool]], None]


def test_queued_work_is_dropped(start: Start, gate: Any, submit: Submit, alone: Alone) -> None:
    scheduler = start(gate)
    running = submit(scheduler, 0)
    gate.wait_for_batch()
    cancelled, kept = submit(scheduler, 1, 2), submit(scheduler, 2, 3)
    assert cancelled.cancel()
    assert cancelled.cancelled()
    assert (scheduler.stats().waiting_inputs, scheduler.stats().waiting_tokens) == (2, 20)
    gate.open(2)
    assert np.array_equal(kept.result(SECONDS).vectors, alone(2, 3))
    assert [int(batch.num_rows) for batch in gate.batches] == [1, 2]
    assert running.result(SECONDS)
    with pytest.raises(CancelledError):
        cancelled.result(SECONDS)
    assert wait([cancelled], timeout=SECONDS).not_done == set()


def test_a_batch_that_was_prepared_is_dropped_or_shrinks(
    start: Start, gate: Any, submit: Submit, until: Until
) -> None:
    scheduler = start(gate, max_tokens=30)
    jobs = [submit(scheduler, 0)]
    gate.wait_for_batch()
    jobs += [submit(scheduler, content) for content in (1, 2, 3)]
    until(lambda: scheduler.stats().running_inputs == 4)
    assert jobs[2].cancel()
    gate.open()
    assert sorted({*gate.wait_for_batch().input_ids.tolist()}) in ([0], [1, 3])
    gate.open(10)
    wait(jobs, SECONDS)
    until(lambda: scheduler.stats().running_inputs == 0)
    assert all(2 not in batch.input_ids for batch in gate.batches)
    # What was dropped did not share a row with what was not.
    assert scheduler.stats().deduplicated == 0

    blocking = submit(scheduler, 4)
    until(blocking.done)
    assert scheduler.stats().running_inputs == 0


def test_the_rest_of_a_running_job_is_dropped(
    start: Start, gate: Any, submit: Submit, until: Until
) -> None:
    scheduler = start(gate, max_tokens=10)
    job = submit(scheduler, *range(10))
    gate.wait_for_batch()
    until(lambda: scheduler.stats().waiting_inputs == 8)
    assert job.cancel()
    assert scheduler.stats().waiting_inputs == 0
    gate.open(10)
    until(lambda: scheduler.stats().running_inputs == 0)
    assert len(gate.batches) == 1


def test_in_the_moment_of_delivery_harms_nobody_else(
    start: Start, gate: Any, submit: Submit, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's thread cancels between the look at a job and the copy of its vector."""
    receive = Job.receive

    def receive_late(job: Job, *values: Any) -> bool:
        if job is cancelled:
            assert job.cancel()
        return receive(job, *values)

    monkeypatch.setattr(Job, "receive", receive_late)
    scheduler = start(gate)
    cancelled, kept = submit(scheduler, 1, 2), submit(scheduler, 2, 3)
    gate.open(3)
    assert np.array_equal(kept.result(SECONDS).vectors, alone(2, 3))
    assert np.array_equal(submit(scheduler, 4).result(SECONDS).vectors, alone(4))
    with pytest.raises(CancelledError):
        cancelled.result(SECONDS)


def test_what_one_job_cannot_take_harms_nobody_else(
    start: Start, gate: Any, submit: Submit, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Job.receive

    def receive_or_fail(job: Job, *values: Any) -> bool:
        if job is failing:
            raise MemoryError
        return receive(job, *values)

    monkeypatch.setattr(Job, "receive", receive_or_fail)
    scheduler = start(gate)
    failing, kept = submit(scheduler, 1, 2), submit(scheduler, 2, 3)
    gate.open(3)
    with pytest.raises(EngineError, match="cannot be taken: MemoryError"):
        failing.result(SECONDS)
    assert np.array_equal(kept.result(SECONDS).vectors, alone(2, 3))
    assert np.array_equal(submit(scheduler, 4).result(SECONDS).vectors, alone(4))


def test_is_too_late_when_the_answer_is_there(start: Start, submit: Submit) -> None:
    job = submit(start(), 1)
    job.result(SECONDS)
    assert not job.cancel()


def test_a_future_that_is_kept_keeps_no_inputs(start: Start, submit: Submit) -> None:
    job = submit(start(), 1, 2)
    job.result(SECONDS)
    assert (len(job.inputs), len(job.rows)) == (0, 0)
