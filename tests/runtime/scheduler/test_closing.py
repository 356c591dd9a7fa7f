"""The end: what was taken is finished or dropped, and the engine closed once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from embed_runtime import ClosedError
from embed_runtime.batching import Limits
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import EmbedResult, FloatArray

SECONDS = 30

Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
Alone = Callable[..., FloatArray]
Until = Callable[[Callable[[], bool]], None]


def _is_closed(submit: Submit, scheduler: Scheduler) -> bool:
    try:
        submit(scheduler, 99)
    except ClosedError:
        return True
    return False


def test_finishes_what_it_took(
    start: Start, gate: Any, submit: Submit, alone: Alone, until: Until
) -> None:
    scheduler = start(gate, max_tokens=20)
    jobs = [submit(scheduler, *range(one, one + 3)) for one in range(0, 30, 3)]
    gate.wait_for_batch()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: _is_closed(submit, scheduler))
    gate.open(1000)
    closing.join(SECONDS)
    assert not closing.is_alive()
    for one, job in zip(range(0, 30, 3), jobs, strict=True):
        assert np.array_equal(job.result(0).vectors, alone(*range(one, one + 3)))


def test_drops_what_it_took(start: Start, gate: Any, submit: Submit) -> None:
    scheduler = start(gate, max_tokens=20)
    jobs = [submit(scheduler, *range(one, one + 3)) for one in range(0, 30, 3)]
    gate.wait_for_batch()
    closing = threading.Thread(target=scheduler.close, kwargs={"drain": False})
    closing.start()
    for job in jobs:
        with pytest.raises(ClosedError, match="the runtime is closed"):
            job.result(SECONDS)
    gate.open(1000)
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert len(gate.batches) == 1


def test_closes_the_engine_once_in_its_own_thread(submit: Submit) -> None:
    closed: list[str] = []

    class Engine(DummyEngine):
        def close(self) -> None:
            closed.append(threading.current_thread().name)

    scheduler = Scheduler(
        Engine(dimensions=8, hidden_size=4, normalize=True),
        limits=Limits(max_tokens=10, max_padding=0),
        max_queue_tokens=100,
    )
    submit(scheduler, 1).result(SECONDS)
    scheduler.close()
    scheduler.close(drain=False)
    assert closed == ["embed-engine"]
    with pytest.raises(ClosedError, match="the runtime is closed"):
        submit(scheduler, 1)


def test_closes_an_engine_with_streams_behind_the_last_of_them(
    gate: Any, submit: Submit, alone: Alone
) -> None:
    closed: list[int] = []

    class Engine(DummyEngine):
        num_streams = 2

        def close(self) -> None:
            closed.append(len(gate.batches))

    scheduler = Scheduler(
        Engine(dimensions=8, hidden_size=4, normalize=True, fault=gate),
        limits=Limits(max_tokens=10, max_padding=0),
        max_queue_tokens=100,
    )
    jobs = [submit(scheduler, content) for content in (1, 2, 3)]
    # Two batches are in the engine at once, the third waits for a stream.
    gate.wait_for_batch()
    gate.wait_for_batch()
    assert len(gate.batches) == 2
    gate.open(3)
    scheduler.close()
    assert closed == [3]
    for job, content in zip(jobs, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(job.result(SECONDS).vectors, alone(content))


def test_from_a_callback(start: Start, gate: Any, submit: Submit) -> None:
    scheduler = start(gate)
    job = submit(scheduler, 1)

    def close(_: Future[EmbedResult]) -> None:
        scheduler.close()

    job.add_done_callback(close)
    gate.open()
    assert job.result(SECONDS)
    scheduler.close()


def test_from_a_callback_that_left_work(
    start: Start, gate: Any, submit: Submit, alone: Alone
) -> None:
    scheduler = start(gate)
    first = submit(scheduler, 1)
    more: list[Job] = []

    def go_on_and_close(_: Future[EmbedResult]) -> None:
        more.extend(submit(scheduler, content) for content in range(2, 30))
        scheduler.close()

    first.add_done_callback(go_on_and_close)
    gate.open(100)
    assert first.result(SECONDS)
    scheduler.close()
    assert len(more) == 28
    for content, job in enumerate(more, 2):
        np.testing.assert_array_equal(job.result(SECONDS).vectors, alone(content))


def test_everyone_who_comes_late_gets_an_error_of_their_own(start: Start, submit: Submit) -> None:
    """One that all of them raised would hold on to what each of them was doing."""
    scheduler = start()
    scheduler.close()
    errors: list[ClosedError] = []
    for content in range(2):
        with pytest.raises(ClosedError, match="the runtime is closed") as caught:
            submit(scheduler, content)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_cancelling_the_last_job_lets_it_end(
    start: Start, gate: Any, submit: Submit, until: Until
) -> None:
    scheduler = start(gate)
    job = submit(scheduler, 1)
    gate.wait_for_batch()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: _is_closed(submit, scheduler))
    assert job.cancel()
    gate.open()
    closing.join(SECONDS)
    assert not closing.is_alive()
