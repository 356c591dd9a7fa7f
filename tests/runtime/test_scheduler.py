"""The scheduler: who shares a batch, who is refused, and that each job is answered once."""

import queue
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_runtime import ClosedError, EngineError, OverloadedError
from embed_runtime.batching import Limits
from embed_runtime.engines.dummy import DummyEngine, Fault
from embed_runtime.jobs import Job
from embed_runtime.plan import Plan
from embed_runtime.scheduler import Scheduler
from embed_runtime.stats import Pace
from embed_runtime.types import Batch, EmbedResult, FloatArray, OutputName, TokenizedInput

SECONDS = 30
POISON = 666

Outputs = dict[OutputName, FloatArray]


class Gate:
    """Holds up every batch in the engine until it is let through."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._entered: queue.Queue[Batch] = queue.Queue()
        self._permits = threading.Semaphore(0)

    def __call__(self, batch: Batch, _: Outputs) -> None:
        self.batches.append(batch)
        self._entered.put(batch)
        assert self._permits.acquire(timeout=SECONDS)

    def wait_for_batch(self) -> Batch:
        """Wait until the engine has the next batch."""
        return self._entered.get(timeout=SECONDS)

    def open(self, count: int = 1) -> None:
        """Let so many batches through."""
        self._permits.release(count)


def poison(batch: Batch, outputs: Outputs) -> None:
    """Fail on batches with a certain token."""
    if POISON in batch.input_ids:
        raise ValueError("cannot digest this")


Start = Callable[..., Scheduler]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start schedulers over a dummy engine; gates are opened and all is closed at the end."""
    opened: list[tuple[Scheduler, Fault | None]] = []

    def start(
        fault: Fault | None = None,
        *,
        max_tokens: int = 100,
        max_padding: int = 1 << 60,
        max_queue_tokens: int = 1 << 40,
    ) -> Scheduler:
        scheduler = Scheduler(
            DummyEngine(dimensions=8, hidden_size=4, normalize=True, fault=fault),
            limits=Limits(max_tokens=max_tokens, max_padding=max_padding),
            max_queue_tokens=max_queue_tokens,
        )
        opened.append((scheduler, fault))
        return scheduler

    yield start
    for scheduler, fault in opened:
        if isinstance(fault, Gate):
            fault.open(1000)
        scheduler.close(drain=False)


def job_of(
    *contents: int,
    length: int = 10,
    output: OutputName = "embedding",
    first_index: int = 0,
    **options: Any,
) -> Job:
    """Make a job with one input for each content; equal contents make equal inputs."""
    inputs = [TokenizedInput(input_ids=np.full(length, content, np.int32)) for content in contents]
    return Job(inputs, Plan(output=output, **options), first_index=first_index)


def submit(scheduler: Scheduler, *contents: int, **options: Any) -> Job:
    job = job_of(*contents, **options)
    scheduler.submit(job)
    return job


def alone(*contents: int, **options: Any) -> FloatArray:
    """Compute what a job must get, by an engine of its own."""
    scheduler = Scheduler(
        DummyEngine(dimensions=8, hidden_size=4, normalize=True),
        limits=Limits(max_tokens=1, max_padding=0),
        max_queue_tokens=1 << 40,
    )
    vectors = submit(scheduler, *contents, **options).result(SECONDS).vectors
    scheduler.close()
    return vectors


def until(is_true: Callable[[], bool]) -> None:
    """Wait for another thread to bring something about."""
    never = threading.Event()
    for _ in range(SECONDS * 1000):
        if is_true():
            return
        never.wait(0.001)
    pytest.fail("it did not happen")


class TestResults:
    def test_one_vector_for_each_input_in_order(self, start: Start) -> None:
        result = submit(start(), 3, 1, 2, 1).result(SECONDS)
        assert result.vectors.shape == (4, 8)
        assert result.vectors.dtype == np.float32
        assert result.offsets.tolist() == [0, 1, 2, 3, 4]
        assert result.num_tokens.tolist() == [10] * 4
        for row, content in zip(result.vectors, (3, 1, 2, 1), strict=True):
            assert np.array_equal(row, alone(content)[0])

    def test_one_vector_for_each_token(self, start: Start) -> None:
        inputs = [TokenizedInput(input_ids=np.arange(n, dtype=np.int32)) for n in (3, 1, 4)]
        job = Job(inputs, Plan(output="token_embeddings"))
        start().submit(job)
        result = job.result(SECONDS)
        assert result.offsets.tolist() == [0, 3, 4, 8]
        assert result.vectors.shape == (8, 4)
        for index in range(3):
            own = result.vectors[result.offsets[index] : result.offsets[index + 1]]
            assert np.array_equal(own, result.vectors[4 : 4 + len(own)])

    def test_cuts_and_normalizes(self, start: Start) -> None:
        cut = submit(start(), 5, dimensions=3, normalize=True).result(SECONDS).vectors
        whole = alone(5)
        assert np.allclose(cut, whole[:, :3] / np.linalg.norm(whole[:, :3]), atol=1e-6)
        assert np.array_equal(submit(start(), 5, dimensions=3).result().vectors, whole[:, :3])

    def test_outputs_of_all_kinds_share_a_batch(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate)
        submit(scheduler, 0)
        gate.wait_for_batch()
        kinds: list[OutputName] = ["embedding", "pooled", "token_embeddings"]
        jobs = [submit(scheduler, 1, output=kind) for kind in kinds]
        gate.open(2)
        for job, kind in zip(jobs, kinds, strict=True):
            assert np.array_equal(job.result(SECONDS).vectors, alone(1, output=kind))
        assert gate.batches[1].outputs == ("embedding", "pooled", "token_embeddings")

    def test_identical_inputs_are_computed_once(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate)
        submit(scheduler, 0)
        gate.wait_for_batch()
        jobs = [submit(scheduler, 1, 2), submit(scheduler, 2, 2), submit(scheduler, 1)]
        gate.open(2)
        assert np.array_equal(jobs[0].result(SECONDS).vectors, alone(1, 2))
        assert np.array_equal(jobs[1].result(SECONDS).vectors, alone(2, 2))
        assert np.array_equal(jobs[2].result(SECONDS).vectors, alone(1))
        assert gate.batches[1].num_rows == 2
        assert scheduler.stats().deduplicated == 3

    def test_jobs_own_their_vectors(self, start: Start) -> None:
        scheduler = start()
        first = submit(scheduler, 1).result(SECONDS).vectors
        first[:] = 0
        assert np.array_equal(submit(scheduler, 1).result(SECONDS).vectors, alone(1))


class TestBatches:
    def test_what_comes_while_the_engine_runs_shares_the_next_batch(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate)
        jobs = [submit(scheduler, 0)]
        assert gate.wait_for_batch().num_rows == 1
        jobs += [submit(scheduler, content) for content in range(1, 6)]
        gate.open(2)
        assert gate.wait_for_batch().num_rows == 5
        wait(jobs, SECONDS)

    def test_exactly_one_full_batch_is_prepared_ahead(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate, max_tokens=30)
        jobs = [submit(scheduler, content) for content in range(12)]
        gate.wait_for_batch()
        in_engine = gate.batches[0].num_rows
        until(lambda: scheduler.stats().running_inputs == in_engine + 3)
        assert scheduler.stats().waiting_inputs == 12 - in_engine - 3
        gate.open(100)
        wait(jobs, SECONDS)
        assert max(batch.num_tokens for batch in gate.batches) == 30

    def test_an_input_beyond_the_limit_goes_alone(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate, max_tokens=15)
        jobs = [submit(scheduler, 0)]
        gate.wait_for_batch()
        jobs += [submit(scheduler, 1, length=40), submit(scheduler, 2), submit(scheduler, 3)]
        gate.open(100)
        wait(jobs, SECONDS)
        assert [batch.lengths.tolist() for batch in gate.batches] == [[10], [40], [10], [10]]

    def test_small_requests_go_before_large_ones_but_not_for_ever(self, start: Start) -> None:
        gate = Gate()
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


class TestAdmission:
    def test_refuses_what_is_too_much_and_takes_it_later(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate, max_queue_tokens=25)
        jobs = [submit(scheduler, 0)]
        gate.wait_for_batch()
        jobs += [submit(scheduler, 1), submit(scheduler, 2)]
        assert not scheduler.has_space(job_of(3))
        with pytest.raises(OverloadedError, match="20 tokens wait, this request has 10") as caught:
            submit(scheduler, 3)
        assert caught.value.retry_after_seconds >= 1
        assert scheduler.has_space(job_of(3, length=5))
        gate.open(2)
        wait(jobs, SECONDS)
        gate.open()
        assert np.array_equal(submit(scheduler, 3).result(SECONDS).vectors, alone(3))

    def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(
        self, start: Start
    ) -> None:
        gate = Gate()
        scheduler = start(gate, max_queue_tokens=25)
        submit(scheduler, 0)
        gate.wait_for_batch()
        large = submit(scheduler, *range(1, 8))
        with pytest.raises(OverloadedError):
            submit(scheduler, 9)
        gate.open(2)
        assert np.array_equal(large.result(SECONDS).vectors, alone(*range(1, 8)))

    def test_waits_for_space_on_demand(self, start: Start) -> None:
        gate = Gate()
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

    def test_who_waits_for_space_hears_of_the_end(self, start: Start) -> None:
        gate = Gate()
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

    def test_pace(self) -> None:
        pace = Pace()
        assert pace.seconds_for(10**6) == 1
        pace.add(1000, 2.0)
        assert pace.seconds_for(5000) == 10
        assert pace.seconds_for(1) == 1
        assert pace.seconds_for(10**9) == 600
        for _ in range(100):
            pace.add(1000, 1.0)
        assert pace.seconds_for(5000) == 6  # the first batch is all but forgotten


class TestCancelling:
    def test_queued_work_is_dropped(self, start: Start) -> None:
        gate = Gate()
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

    def test_a_batch_that_was_prepared_is_dropped_or_shrinks(self, start: Start) -> None:
        gate = Gate()
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

        blocking = submit(scheduler, 4)
        until(blocking.done)
        assert scheduler.stats().running_inputs == 0

    def test_the_rest_of_a_running_job_is_dropped(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate, max_tokens=10)
        job = submit(scheduler, *range(10))
        gate.wait_for_batch()
        until(lambda: scheduler.stats().waiting_inputs == 8)
        assert job.cancel()
        assert scheduler.stats().waiting_inputs == 0
        gate.open(10)
        until(lambda: scheduler.stats().running_inputs == 0)
        assert len(gate.batches) == 1

    def test_is_too_late_when_the_answer_is_there(self, start: Start) -> None:
        job = submit(start(), 1)
        job.result(SECONDS)
        assert not job.cancel()

    def test_a_future_that_is_kept_keeps_no_inputs(self, start: Start) -> None:
        job = submit(start(), 1, 2)
        job.result(SECONDS)
        assert (len(job.inputs), len(job.rows)) == (0, 0)


class TestFailures:
    def test_one_job_alone(self, start: Start) -> None:
        scheduler = start(poison)
        with pytest.raises(
            EngineError, match="failed on a batch: ValueError: cannot digest this"
        ) as caught:
            submit(scheduler, POISON).result(SECONDS)
        assert isinstance(caught.value.__cause__, ValueError)
        assert np.array_equal(submit(scheduler, 1).result(SECONDS).vectors, alone(1))
        stats = scheduler.stats()
        assert (stats.failed_batches, stats.failures_in_a_row, stats.batches) == (1, 0, 1)

    def test_a_poisonous_input_hurts_its_own_job_only(self, start: Start) -> None:
        gate = Gate()

        def fault(batch: Batch, outputs: Outputs) -> None:
            gate(batch, outputs)
            poison(batch, outputs)

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

    def test_a_job_cancelled_between_the_two_tries(self, start: Start) -> None:
        gate = Gate()

        def fault(batch: Batch, outputs: Outputs) -> None:
            gate(batch, outputs)
            poison(batch, outputs)

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

    def test_the_poison_of_a_job_that_is_gone(self, start: Start) -> None:
        gate = Gate()

        def fault(batch: Batch, outputs: Outputs) -> None:
            gate(batch, outputs)
            poison(batch, outputs)

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
    def test_wrong_shapes(self, start: Start, shape: tuple[int, ...] | None) -> None:
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
        self, start: Start, value: float, output: OutputName
    ) -> None:
        gate = Gate()

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

    def test_no_memory_for_one_job(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
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
        self, start: Start, monkeypatch: pytest.MonkeyPatch, thread: str
    ) -> None:
        gate = Gate()

        def fault(batch: Batch, outputs: Outputs) -> None:
            gate(batch, outputs)
            if thread == "engine":
                raise SystemExit("the library called exit")

        def die(*_: object) -> None:
            raise SystemExit("the library called exit")

        if thread == "delivery":
            monkeypatch.setattr("embed_runtime.scheduler._find_fault", die)
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


class TestExpress:
    """A thread more for small requests, while large batches keep all streams busy."""

    @pytest.fixture
    def gate(self) -> Gate:
        return Gate()

    @pytest.fixture
    def scheduler(self, gate: Gate) -> Iterator[Scheduler]:
        class Engine(DummyEngine):
            num_streams = 2
            has_express = True

        scheduler = Scheduler(
            Engine(dimensions=8, hidden_size=4, normalize=True, fault=gate),
            limits=Limits(max_tokens=100, max_padding=1 << 60),
            max_queue_tokens=1 << 40,
        )
        yield scheduler
        gate.open(1000)
        scheduler.close(drain=False)

    def test_small_requests_pass_large_batches(self, scheduler: Scheduler, gate: Gate) -> None:
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

    def test_large_batches_never_do(self, scheduler: Scheduler, gate: Gate) -> None:
        submit(scheduler, *range(80), length=10)
        for _ in range(2):
            gate.wait_for_batch()
        until(lambda: scheduler.stats().running_inputs == 30)  # the third one is made, and waits
        assert len(gate.batches) == 2

    def test_what_waits_for_a_small_batch_waits(self, scheduler: Scheduler, gate: Gate) -> None:
        submit(scheduler, 1, length=3)
        gate.wait_for_batch()
        submit(scheduler, *range(20), length=10)
        gate.wait_for_batch()
        late = submit(scheduler, 2, length=3)
        assert len(gate.batches) == 2
        gate.open(1000)
        late.result(SECONDS)
        assert any(3 in batch.lengths for batch in gate.batches[2:])

    def test_a_small_request_that_fails_fails_alone(
        self, scheduler: Scheduler, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = DummyEngine.run

        def poisoned(engine: DummyEngine, batch: Batch) -> Outputs:
            outputs = run(engine, batch)
            poison(batch, outputs)
            return outputs

        monkeypatch.setattr(DummyEngine, "run", poisoned)
        bulk = submit(scheduler, *range(40), length=10)
        for _ in range(2):
            gate.wait_for_batch()
        queries = [submit(scheduler, content, length=3) for content in (POISON, 7)]
        gate.open(1000)
        with pytest.raises(EngineError, match="cannot digest this"):
            queries[0].result(SECONDS)
        queries[1].result(SECONDS)
        bulk.result(SECONDS)


class TestClosing:
    def test_finishes_what_it_took(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate, max_tokens=20)
        jobs = [submit(scheduler, *range(one, one + 3)) for one in range(0, 30, 3)]
        gate.wait_for_batch()
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        until(lambda: _is_closed(scheduler))
        gate.open(1000)
        closing.join(SECONDS)
        assert not closing.is_alive()
        for one, job in zip(range(0, 30, 3), jobs, strict=True):
            assert np.array_equal(job.result(0).vectors, alone(*range(one, one + 3)))

    def test_drops_what_it_took(self, start: Start) -> None:
        gate = Gate()
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

    def test_closes_the_engine_once_in_its_own_thread(self) -> None:
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

    def test_closes_an_engine_with_streams_behind_the_last_of_them(self) -> None:
        gate = Gate()
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

    def test_from_a_callback(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate)
        job = submit(scheduler, 1)

        def close(_: Future[EmbedResult]) -> None:
            scheduler.close()

        job.add_done_callback(close)
        gate.open()
        assert job.result(SECONDS)
        scheduler.close()

    def test_cancelling_the_last_job_lets_it_end(self, start: Start) -> None:
        gate = Gate()
        scheduler = start(gate)
        job = submit(scheduler, 1)
        gate.wait_for_batch()
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        until(lambda: _is_closed(scheduler))
        assert job.cancel()
        gate.open()
        closing.join(SECONDS)
        assert not closing.is_alive()


def _is_closed(scheduler: Scheduler) -> bool:
    try:
        submit(scheduler, 99)
    except ClosedError:
        return True
    return False


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_threads=st.integers(1, 3),
    ending=st.sampled_from(["drain", "drop", "crash"]),
)
def test_every_job_is_answered_exactly_once(seed: int, num_threads: int, ending: str) -> None:
    """Threads submit and cancel, the engine fails now and then, and something ends it all."""
    chance = random.Random(seed)  # noqa: S311, not for cryptography
    crash_at = chance.randrange(10) if ending == "crash" else 1 << 60
    num_batches = 0

    def fault(batch: Batch, outputs: Outputs) -> None:
        nonlocal num_batches
        num_batches += 1
        if num_batches > crash_at:
            raise SystemExit("crash")
        poison(batch, outputs)
        if 13 in batch.input_ids:
            outputs["embedding"][batch.input_ids[batch.cu_seqlens[:-1]] == 13] = np.nan

    scheduler = Scheduler(
        DummyEngine(dimensions=8, hidden_size=4, normalize=True, fault=fault),
        limits=Limits(max_tokens=40, max_padding=1000),
        max_queue_tokens=1 << 40,
    )
    answers: dict[Job, list[None]] = {}
    contents_of: dict[Job, list[int]] = {}
    lock = threading.Lock()

    def work(own: random.Random) -> None:
        for _ in range(15):
            contents = own.choices([*range(10), 13, POISON], k=own.randint(1, 6))
            job = job_of(*contents, length=own.choice([3, 10, 20]))
            with lock:
                answers[job], contents_of[job] = [], contents

            def note(done: Future[EmbedResult], job: Job = job) -> None:
                answers[job].append(None)

            job.add_done_callback(note)
            try:
                scheduler.submit(job)
            except ClosedError:
                with lock:
                    del answers[job]
                return
            if own.random() < 0.2:
                job.cancel()

    threads = [
        threading.Thread(target=work, args=(random.Random(chance.random()),))  # noqa: S311
        for _ in range(num_threads)
    ]
    for thread in threads:
        thread.start()
    if ending == "drop":
        scheduler.close(drain=False)
    for thread in threads:
        thread.join()
    scheduler.close()
    assert wait(answers, timeout=SECONDS).not_done == set()
    for job, noted in answers.items():
        assert len(noted) == 1
        if job.cancelled():
            continue
        error = job.exception()
        if error is None:
            assert not {13, POISON} & {*contents_of[job]}
            length = int(job.result().num_tokens[0])
            assert np.array_equal(job.result().vectors, alone(*contents_of[job], length=length))
        elif ending == "drain":
            assert isinstance(error, EngineError)
            assert {13, POISON} & {*contents_of[job]}
        else:
            assert isinstance(error, EngineError | ClosedError)
    stats = scheduler.stats()
    assert (stats.waiting_inputs, stats.waiting_tokens) == (0, 0)
    if ending != "crash":
        assert stats.running_inputs == 0


def test_stats(start: Start) -> None:
    gate = Gate()
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
