"""Engines that fail, and outputs that cannot be: each hurts its own job only."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embed_runtime import ClosedError, EngineError
from embed_runtime.engines.dummy import Fault
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import Batch, FloatArray, OutputName

SECONDS = 30
POISON = 666

Outputs = dict[OutputName, FloatArray]
Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
Alone = Callable[..., FloatArray]
Until = Callable[[Callable[[], bool]], None]
FailsOn = Callable[[int], Fault]


def test_one_job_alone(start: Start, submit: Submit, alone: Alone, fails_on: FailsOn) -> None:
    scheduler = start(fails_on(POISON))
    with pytest.raises(
        EngineError, match="failed on a batch: ValueError: cannot digest this"
    ) as caught:
        submit(scheduler, POISON).result(SECONDS)
    assert isinstance(caught.value.__cause__, ValueError)
    assert np.array_equal(submit(scheduler, 1).result(SECONDS).vectors, alone(1))
    stats = scheduler.stats()
    assert (stats.failed_batches, stats.failures_in_a_row, stats.batches) == (1, 0, 1)


def test_a_poisonous_input_hurts_its_own_job_only(
    start: Start, gate: Any, submit: Submit, alone: Alone, fails_on: FailsOn
) -> None:
    def fault(batch: Batch, outputs: Outputs) -> None:
        gate(batch, outputs)
        fails_on(POISON)(batch, outputs)

    scheduler = start(fault)
    submit(scheduler, 0)
    gate.wait_for_batch()
    bad, good, both = (
        submit(scheduler, 1, POISON),
        submit(scheduler, 1, 2),
        submit(scheduler, 3),
    )
    gate.open(100)
    with pytest.raises(EngineError):
        bad.result(SECONDS)
    assert np.array_equal(good.result(SECONDS).vectors, alone(1, 2))
    assert np.array_equal(both.result(SECONDS).vectors, alone(3))
    # Together, and then each job once more.
    assert [batch.num_rows for batch in gate.batches] == [1, 4, 2, 2, 1]
    assert scheduler.stats().running_inputs == 0


def test_a_job_cancelled_between_the_two_tries(
    start: Start, gate: Any, submit: Submit, alone: Alone, until: Until, fails_on: FailsOn
) -> None:
    def fault(batch: Batch, outputs: Outputs) -> None:
        gate(batch, outputs)
        fails_on(POISON)(batch, outputs)

    scheduler = start(fault)
    submit(scheduler, 0)
    gate.wait_for_batch()
    bad, good, late = submit(scheduler, POISON), submit(scheduler, 1), submit(scheduler, 2)
    gate.open(2)
    for _ in range(2):
        gate.wait_for_batch()
    assert late.cancel()
    gate.open(100)
    assert np.array_equal(good.result(SECONDS).vectors, alone(1))
    with pytest.raises(EngineError):
        bad.result(SECONDS)
    until(lambda: scheduler.stats().running_inputs == 0)
    assert [int(batch.input_ids[0]) for batch in gate.batches[2:]] == [POISON, 1]


def test_the_poison_of_a_job_that_is_gone(
    start: Start, gate: Any, submit: Submit, alone: Alone, fails_on: FailsOn
) -> None:
    def fault(batch: Batch, outputs: Outputs) -> None:
        gate(batch, outputs)
        fails_on(POISON)(batch, outputs)

    scheduler = start(fault)
    submit(scheduler, 0)
    gate.wait_for_batch()
    bad, good = submit(scheduler, POISON), submit(scheduler, 1)
    gate.open()
    assert gate.wait_for_batch().num_rows == 2
    assert bad.cancel()
    gate.open(2)
    assert np.array_equal(good.result(SECONDS).vectors, alone(1))


@pytest.mark.parametrize("shape", [(1, 8), (3, 8), (2,), None])
def test_wrong_shapes(start: Start, submit: Submit, shape: tuple[int, ...] | None) -> None:
    def fault(batch: Batch, outputs: Outputs) -> None:
        if shape is None:
            del outputs["embedding"]
        else:
            outputs["embedding"] = np.ones(shape, np.float32)

    with pytest.raises(EngineError, match="the output 'embedding'"):
        submit(start(fault), 1, 2).result(SECONDS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", ["embedding", "token_embeddings"])
def test_values_that_are_not_finite(
    start: Start, gate: Any, submit: Submit, alone: Alone, value: float, output: OutputName
) -> None:
    def fault(batch: Batch, outputs: Outputs) -> None:
        gate(batch, outputs)
        ids = batch.input_ids if output == "token_embeddings" else batch.input_ids[::10]
        outputs[output][ids == POISON, 2] = value

    scheduler = start(fault)
    submit(scheduler, 0, output=output)
    gate.wait_for_batch()
    good = submit(scheduler, 1, output=output)
    bad = submit(scheduler, 2, POISON, output=output, first_index=40)
    gate.open(10)
    with pytest.raises(EngineError, match="not finite for input 41"):
        bad.result(SECONDS)
    assert np.array_equal(good.result(SECONDS).vectors, alone(1, output=output))
    assert len(gate.batches) == 2  # nothing was tried again


def test_no_memory_for_one_job(
    start: Start, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = start()
    with monkeypatch.context() as patch:

        def no_memory(*_: object, **__: object) -> None:
            raise MemoryError

        patch.setattr(
            "embed_runtime.gathering.np", SimpleNamespace(**{**vars(np), "empty": no_memory})
        )
        with pytest.raises(EngineError, match="not enough memory"):
            submit(scheduler, 1).result(SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr("embed_runtime.gathering.vectors.finish", no_memory)
        with pytest.raises(EngineError, match="cannot be finished: MemoryError"):
            submit(scheduler, 1).result(SECONDS)
    assert submit(scheduler, 1).result(SECONDS)


@pytest.mark.parametrize("thread", ["engine", "delivery"])
def test_a_thread_that_dies_answers_everybody(
    start: Start, gate: Any, submit: Submit, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    def fault(batch: Batch, outputs: Outputs) -> None:
        gate(batch, outputs)
        if thread == "engine":
            raise SystemExit("the library called exit")

    def die(*_: object) -> None:
        raise SystemExit("the library called exit")

    if thread == "delivery":
        monkeypatch.setattr("embed_runtime.work.Work.answer", die)
    scheduler = start(fault, max_tokens=20)
    jobs = [submit(scheduler, *range(start, start + 5)) for start in range(0, 30, 5)]
    gate.wait_for_batch()
    gate.open(1000)
    for job in jobs:
        with pytest.raises(ClosedError, match="SystemExit: the library called exit"):
            job.result(SECONDS)
    scheduler.close()
    with pytest.raises(ClosedError, match="SystemExit"):
        submit(scheduler, 1)
