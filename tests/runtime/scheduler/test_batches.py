"""Who shares a batch, in what order, and what is counted."""

from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler

SECONDS = 30

Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
Until = Callable[[Callable[[], bool]], None]


def test_what_comes_while_the_engine_runs_shares_the_next_batch(
    start: Start, gate: Any, submit: Submit
) -> None:
    scheduler = start(gate)
    jobs = [submit(scheduler, 0)]
    assert gate.wait_for_batch().num_rows == 1
    jobs += [submit(scheduler, content) for content in range(1, 6)]
    gate.open(2)
    assert gate.wait_for_batch().num_rows == 5
    wait(jobs, SECONDS)


def test_exactly_one_full_batch_is_prepared_ahead(
    start: Start, gate: Any, submit: Submit, until: Until
) -> None:
    scheduler = start(gate, max_tokens=30)
    jobs = [submit(scheduler, content) for content in range(12)]
    gate.wait_for_batch()
    in_engine = gate.batches[0].num_rows
    until(lambda: scheduler.stats().running_inputs == in_engine + 3)
    assert scheduler.stats().waiting_inputs == 12 - in_engine - 3
    gate.open(100)
    wait(jobs, SECONDS)
    assert max(batch.num_tokens for batch in gate.batches) == 30


def test_an_input_beyond_the_limit_goes_alone(start: Start, gate: Any, submit: Submit) -> None:
    scheduler = start(gate, max_tokens=15)
    jobs = [submit(scheduler, 0)]
    gate.wait_for_batch()
    jobs += [submit(scheduler, 1, length=40), submit(scheduler, 2), submit(scheduler, 3)]
    gate.open(100)
    wait(jobs, SECONDS)
    assert [batch.lengths.tolist() for batch in gate.batches] == [[10], [40], [10], [10]]


def test_small_requests_go_before_large_ones_but_not_for_ever(
    start: Start, gate: Any, submit: Submit, until: Until
) -> None:
    scheduler = start(gate, max_tokens=10)
    jobs = [submit(scheduler, 0)]
    gate.wait_for_batch()
    # Of a batch ahead: it is taken as soon as it is there.
    jobs.append(submit(scheduler, 1))
    until(lambda: scheduler.stats().waiting_inputs == 0)
    jobs.append(submit(scheduler, *range(100, 103)))
    jobs += [submit(scheduler, content) for content in range(2, 8)]
    gate.open(100)
    wait(jobs, SECONDS)
    order = [int(batch.input_ids[0]) for batch in gate.batches]
    assert order == [0, 1, 2, 3, 4, 100, 5, 6, 7, 101, 102]


def test_stats(start: Start, gate: Any, submit: Submit) -> None:
    scheduler = start(gate)
    submit(scheduler, 0)
    gate.wait_for_batch()
    jobs = [submit(scheduler, 1, length=30), submit(scheduler, 2), submit(scheduler, 2)]
    stats = scheduler.stats()
    assert (stats.waiting_inputs, stats.waiting_tokens, stats.running_inputs) == (3, 50, 1)
    gate.open(2)
    wait(jobs, SECONDS)
    stats = scheduler.stats()
    assert (stats.batches, stats.rows, stats.tokens, stats.deduplicated) == (2, 3, 50, 1)
    assert stats.attention_slots == 1 * 10 + 2 * 30
    assert stats.padding_share == pytest.approx(1 - 50 / 70)
    assert stats.engine_seconds > 0
    assert start().stats().padding_share == 0
