"""Schedulers over dummy engines, a gate that holds them up, and jobs of a given content."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from embed_runtime.batching import Limits
from embed_runtime.engines.dummy import DummyEngine, Fault
from embed_runtime.jobs import Job
from embed_runtime.plan import Plan
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import Batch, FloatArray, OutputName, TokenizedInput

SECONDS = 30

Outputs = dict[OutputName, FloatArray]
Submit = Callable[..., Job]


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


@pytest.fixture
def gate() -> Gate:
    """A fault that holds up every batch; `batches` has all that came to it."""
    return Gate()


@pytest.fixture
def start(gate: Gate) -> Iterator[Callable[..., Scheduler]]:
    """Start schedulers over a dummy engine; the gate is opened and all is closed at the end."""
    opened: list[Scheduler] = []

    def start(
        fault: Fault | None = None,
        *,
        max_tokens: int = 100,
        max_padding: int = 1 << 60,
        max_queue_tokens: int = 1 << 40,
        max_cache_bytes: int = 0,
    ) -> Scheduler:
        scheduler = Scheduler(
            DummyEngine(dimensions=8, hidden_size=4, normalize=True, fault=fault),
            limits=Limits(max_tokens=max_tokens, max_padding=max_padding),
            max_queue_tokens=max_queue_tokens,
            max_cache_bytes=max_cache_bytes,
        )
        opened.append(scheduler)
        return scheduler

    yield start
    gate.open(1000)
    for scheduler in opened:
        scheduler.close(drain=False)


@pytest.fixture(scope="session")
def job_of() -> Callable[..., Job]:
    """Makes a job with one input for each content; equal contents make equal inputs."""

    def job_of(
        *contents: int,
        length: int = 10,
        output: OutputName = "embedding",
        first_index: int = 0,
        **options: Any,
    ) -> Job:
        inputs = [TokenizedInput(input_ids=np.full(length, one, np.int32)) for one in contents]
        return Job(inputs, Plan(output=output, **options), first_index=first_index)

    return job_of


@pytest.fixture(scope="session")
def submit(job_of: Callable[..., Job]) -> Submit:
    """Submits a job of some contents to a scheduler, and returns it."""

    def submit(scheduler: Scheduler, *contents: int, **options: Any) -> Job:
        job = job_of(*contents, **options)
        scheduler.submit(job)
        return job

    return submit


@pytest.fixture(scope="session")
def alone(submit: Submit) -> Callable[..., FloatArray]:
    """Computes what a job must get, by an engine of its own."""

    def alone(*contents: int, **options: Any) -> FloatArray:
        scheduler = Scheduler(
            DummyEngine(dimensions=8, hidden_size=4, normalize=True),
            limits=Limits(max_tokens=1, max_padding=0),
            max_queue_tokens=1 << 40,
        )
        vectors = submit(scheduler, *contents, **options).result(SECONDS).vectors
        scheduler.close()
        return vectors

    return alone


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits for another thread to bring something about."""

    def until(is_true: Callable[[], bool]) -> None:
        never = threading.Event()
        for _ in range(SECONDS * 1000):
            if is_true():
                return
            never.wait(0.001)
        pytest.fail("it did not happen")

    return until


@pytest.fixture(scope="session")
def fails_on() -> Callable[[int], Fault]:
    """Makes a fault that fails on batches with a certain token."""

    def fails_on(token: int) -> Fault:
        def fault(batch: Batch, _: Outputs) -> None:
            if token in batch.input_ids:
                raise ValueError("cannot digest this")

        return fault

    return fails_on
