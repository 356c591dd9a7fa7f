"""Who is refused when too much waits, and who waits for space."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import numpy as np
import pytest

from embed_runtime import ClosedError, OverloadedError
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.stats import Pace
from embed_runtime.types import FloatArray

SECONDS = 30

Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
JobOf = Callable[..., Job]
Alone = Callable[..., FloatArray]


def test_refuses_what_is_too_much_and_takes_it_later(
    start: Start, gate: Any, submit: Submit, job_of: JobOf, alone: Alone
) -> None:
    scheduler = start(gate, max_queue_tokens=25)
    jobs = [submit(scheduler, 0)]
    gate.wait_for_batch()
    jobs += [submit(scheduler, 1), submit(scheduler, 2)]
    late = job_of(3)
    with pytest.raises(OverloadedError, match="20 tokens wait, this request has 10") as caught:
        scheduler.submit(late)
    assert caught.value.retry_after_seconds >= 1
    jobs.append(submit(scheduler, 3, length=5))
    gate.open(3)
    wait(jobs, SECONDS)
    gate.open()
    scheduler.submit(late)
    assert np.array_equal(late.result(SECONDS).vectors, alone(3))


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(
    start: Start, gate: Any, submit: Submit, alone: Alone
) -> None:
    scheduler = start(gate, max_queue_tokens=25)
    submit(scheduler, 0)
    gate.wait_for_batch()
    large = submit(scheduler, *range(1, 8))
    with pytest.raises(OverloadedError):
        submit(scheduler, 9)
    gate.open(2)
    assert np.array_equal(large.result(SECONDS).vectors, alone(*range(1, 8)))


def test_waits_for_space_on_demand(
    start: Start, gate: Any, submit: Submit, job_of: JobOf, alone: Alone
) -> None:
    scheduler = start(gate, max_queue_tokens=10)
    submit(scheduler, 0)
    gate.wait_for_batch()
    submit(scheduler, 1)
    late = job_of(2)
    thread = threading.Thread(target=scheduler.submit, args=(late,), kwargs={"wait": True})
    thread.start()
    assert not late.done()
    gate.open(3)
    assert np.array_equal(late.result(SECONDS).vectors, alone(2))
    thread.join()


def test_who_waits_for_space_hears_of_the_end(
    start: Start, gate: Any, submit: Submit, job_of: JobOf
) -> None:
    scheduler = start(gate, max_queue_tokens=10)
    submit(scheduler, 0)
    gate.wait_for_batch()
    submit(scheduler, 1)
    errors: queue.Queue[Exception] = queue.Queue()

    def wait_for_space() -> None:
        try:
            scheduler.submit(job_of(2), wait=True)
        except ClosedError as error:
            errors.put(error)

    threads = [
        threading.Thread(target=wait_for_space),
        threading.Thread(target=scheduler.close, kwargs={"drain": False}),
    ]
    for thread in threads:
        thread.start()
    assert isinstance(errors.get(timeout=SECONDS), ClosedError)
    gate.open(10)
    for thread in threads:
        thread.join()


def test_pace() -> None:
    pace = Pace()
    assert pace.seconds_for(10**6) == 1
    pace.add(1000, 2.0)
    assert pace.seconds_for(5000) == 10
    assert pace.seconds_for(1) == 1
    assert pace.seconds_for(10**9) == 600
    for _ in range(100):
        pace.add(1000, 1.0)
    assert pace.seconds_for(5000) == 6  # the first batch is all but forgotten
