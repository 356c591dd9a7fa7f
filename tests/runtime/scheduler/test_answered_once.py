"""Every job is answered exactly once, whatever happens."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_runtime import ClosedError, EngineError
from embed_runtime.batching import Limits
from embed_runtime.engines.dummy import DummyEngine, Fault
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import Batch, EmbedResult, FloatArray, OutputName

SECONDS = 30
POISON = 666

Outputs = dict[OutputName, FloatArray]
JobOf = Callable[..., Job]
Alone = Callable[..., FloatArray]
FailsOn = Callable[[int], Fault]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_threads=st.integers(1, 3),
    ending=st.sampled_from(["drain", "drop", "crash"]),
)
def test_every_job_is_answered_exactly_once(
    job_of: JobOf,
    alone: Alone,
    fails_on: FailsOn,
    seed: int,
    num_threads: int,
    ending: str,
) -> None:
    """Threads submit and cancel, the engine fails now and then, and something ends it all."""
    chance = random.Random(seed)  # noqa: S311, not for cryptography
    crash_at = chance.randrange(10) if ending == "crash" else 1 << 60
    num_batches = 0

    def fault(batch: Batch, outputs: Outputs) -> None:
        nonlocal num_batches
        num_batches += 1
        if num_batches > crash_at:
            raise SystemExit("crash")
        fails_on(POISON)(batch, outputs)
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
