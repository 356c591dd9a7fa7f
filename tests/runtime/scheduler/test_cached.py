"""A scheduler with a result cache: no engine and no queue for what is known."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest

from embed_runtime import ClosedError, EngineError, OverloadedError
from embed_runtime.engines.dummy import Fault
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import Batch, FloatArray, OutputName

SECONDS = 30
BYTES = 1 << 20

Outputs = dict[OutputName, FloatArray]
Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
Alone = Callable[..., FloatArray]
Until = Callable[[Callable[[], bool]], None]


def know(scheduler: Scheduler, gate: Any, submit: Submit, *contents: int) -> None:
    """Have the contents computed, and with them kept."""
    job = submit(scheduler, *contents)
    gate.open()
    gate.wait_for_batch()
    job.result(SECONDS)


def test_what_is_known_is_answered_at_once_while_engine_and_queue_are_full(
    start: Start, gate: Any, submit: Submit, alone: Alone
) -> None:
    scheduler = start(gate, max_queue_tokens=20, max_cache_bytes=BYTES)
    know(scheduler, gate, submit, 1, 2)
    running = submit(scheduler, 7)
    gate.wait_for_batch()
    waiting = submit(scheduler, 8, 9)
    with pytest.raises(OverloadedError):
        submit(scheduler, 3)
    known = submit(scheduler, 2, 1, 2, dimensions=3, normalize=True)
    assert known.done()
    assert np.array_equal(known.result(0).vectors, alone(2, 1, 2, dimensions=3, normalize=True))
    assert known.result(0).num_tokens.tolist() == [10, 10, 10]
    assert scheduler.stats().waiting_tokens == 20
    gate.open(2)
    assert np.array_equal(waiting.result(SECONDS).vectors, alone(8, 9))
    assert running.result(SECONDS)
    assert scheduler.stats().batches == 3
    assert (scheduler.stats().cache.hits, scheduler.stats().cache.misses) == (3, 6)


def test_only_the_rest_of_a_request_waits(
    start: Start, gate: Any, submit: Submit, alone: Alone
) -> None:
    scheduler = start(gate, max_queue_tokens=20, max_cache_bytes=BYTES)
    know(scheduler, gate, submit, 1, 2)
    submit(scheduler, 7)
    gate.wait_for_batch()
    mixed = submit(scheduler, 1, 3, 2, 4)
    assert (scheduler.stats().waiting_inputs, scheduler.stats().waiting_tokens) == (2, 20)
    with pytest.raises(OverloadedError, match="20 tokens wait, this request has 10"):
        submit(scheduler, 1, 5)
    gate.open(2)
    result = mixed.result(SECONDS)
    assert np.array_equal(result.vectors, alone(1, 3, 2, 4))
    assert result.num_tokens.tolist() == [10] * 4
    assert gate.batches[2].num_rows == 2


def test_the_first_vectors_come_again_to_the_last_bit(start: Start, submit: Submit) -> None:
    runs: list[Batch] = []

    def drift(batch: Batch, outputs: Outputs) -> None:
        runs.append(batch)
        outputs["embedding"] *= np.float32(1 + 1e-6 * len(runs))

    for max_cache_bytes, is_same in ((BYTES, True), (0, False)):
        scheduler = start(drift, max_cache_bytes=max_cache_bytes)
        first, second = (submit(scheduler, 1).result(SECONDS).vectors for _ in range(2))
        assert np.array_equal(first, second) is is_same


def test_callers_cannot_change_what_is_kept(start: Start, submit: Submit, alone: Alone) -> None:
    scheduler = start(max_cache_bytes=BYTES)
    for _ in range(3):
        vectors = submit(scheduler, 1).result(SECONDS).vectors
        assert np.array_equal(vectors, alone(1))
        vectors[:] = 0
    assert scheduler.stats().batches == 1


def test_vectors_of_tokens_are_not_kept(start: Start, submit: Submit) -> None:
    scheduler = start(max_cache_bytes=BYTES)
    for _ in range(2):
        submit(scheduler, 1, output="token_embeddings").result(SECONDS)
    assert scheduler.stats().batches == 2
    assert scheduler.stats().cache.entries == scheduler.stats().cache.misses == 0


def test_neither_failed_nor_infinite_results_are_kept(
    start: Start, submit: Submit, fails_on: Callable[[int], Fault]
) -> None:
    def infinite(batch: Batch, outputs: Outputs) -> None:
        outputs["embedding"][np.isin(batch.input_ids[batch.cu_seqlens[:-1]], 5)] = np.inf

    for fault in (fails_on(5), infinite):
        scheduler = start(fault, max_cache_bytes=BYTES)
        for _ in range(2):
            with pytest.raises(EngineError):
                submit(scheduler, 5).result(SECONDS)
        assert scheduler.stats().cache.entries == 0

    # A sound neighbour in the same batch is kept.
    with pytest.raises(EngineError):
        submit(scheduler, 1, 5).result(SECONDS)
    assert submit(scheduler, 1).done()


def test_a_cancelled_request_keeps_what_was_computed_for_it(
    start: Start, gate: Any, submit: Submit, alone: Alone, until: Until
) -> None:
    scheduler = start(gate, max_cache_bytes=BYTES)
    know(scheduler, gate, submit, 1)
    cancelled = submit(scheduler, 1, 2)
    gate.wait_for_batch()
    dropped = submit(scheduler, 1, 3)
    assert cancelled.cancel()
    assert dropped.cancel()
    assert scheduler.stats().waiting_inputs == 0
    gate.open()
    until(lambda: scheduler.stats().running_inputs == 0)
    with pytest.raises(CancelledError):
        cancelled.result(0)
    known = submit(scheduler, 2)
    assert np.array_equal(known.result(0).vectors, alone(2))
    assert not known.cancel()
    assert scheduler.stats().cache.entries == 2


def test_a_waiting_caller_waits_for_the_rest_only(
    start: Start, gate: Any, submit: Submit, job_of: Callable[..., Job]
) -> None:
    scheduler = start(gate, max_queue_tokens=10, max_cache_bytes=BYTES)
    know(scheduler, gate, submit, 1)
    submit(scheduler, 7)
    gate.wait_for_batch()
    submit(scheduler, 8)
    known = job_of(1, 1, 1)
    scheduler.submit(known, wait=True)
    assert known.done()


def test_a_closed_scheduler_answers_nothing_and_keeps_nothing(start: Start, submit: Submit) -> None:
    scheduler = start(max_cache_bytes=BYTES)
    submit(scheduler, 1).result(SECONDS)
    assert scheduler.stats().cache.entries == 1
    scheduler.close()
    with pytest.raises(ClosedError):
        submit(scheduler, 1)
    assert scheduler.stats().cache.num_bytes == scheduler.stats().cache.entries == 0


def test_a_closing_scheduler_takes_no_request_that_is_known(
    start: Start, gate: Any, submit: Submit, until: Until
) -> None:
    scheduler = start(gate, max_cache_bytes=BYTES)
    know(scheduler, gate, submit, 1)
    running = submit(scheduler, 1, 2)
    gate.wait_for_batch()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: refuses(scheduler, submit))
    gate.open()
    assert running.result(SECONDS).vectors.shape == (2, 8)
    closing.join(SECONDS)


def refuses(scheduler: Scheduler, submit: Submit) -> bool:
    """Whether a request that is known is refused."""
    try:
        submit(scheduler, 1)
    except ClosedError:
        return True
    return False
