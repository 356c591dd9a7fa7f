"""The queue between callers and the engine: admission, the threads, one answer each."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embed_runtime.batching import Limits, Row, Waiting, collate
from embed_runtime.engines import Engine
from embed_runtime.errors import (
    ClosedError,
    EmbedError,
    EngineError,
    NotFiniteError,
    OverloadedError,
)
from embed_runtime.jobs import Job, Target
from embed_runtime.result_cache import ResultCache
from embed_runtime.stats import CacheStats, Pace, SchedulerStats
from embed_runtime.types import TOKEN_OUTPUTS, Batch, FloatArray, OutputName

# A request counts as small up to this share of a full batch; one input alone always does.
_SMALL_SHARE = 0.25
# A batch that took the engine no longer than this is delivered by the engine's own thread, because
# waking the other one would take as long.
_QUICK_SECONDS = 0.0005


@dataclass(slots=True, kw_only=True)
class _Work:
    """A batch on its way through the engine, and what became of it there.

    `job` is set where a batch failed and the rows of each of its jobs are tried alone.
    """

    rows: list[Row[Target]]
    num_inputs: int
    job: Job | None = None
    is_small: bool = False
    batch: Batch | None = None
    outputs: Mapping[OutputName, FloatArray] = field(default_factory=dict[OutputName, FloatArray])
    error: Exception | None = None
    seconds: float = 0.0


class Scheduler:
    """Owns an engine: takes jobs from any thread, and answers every one exactly once.

    One thread for each of its streams runs the engine and, where work waits, does nothing else but
    to take its next batch. Another delivers what the engine finished; and while the engine runs
    and enough for a full batch waits, it prepares that one batch ahead. With less waiting, the next
    batch stays open until a stream is free: it then takes what has come, an even share of it beside
    other streams that are busy, and waits for nothing else. Where a stream would idle, its thread
    delivers what it finished: that saves the way to the other.

    While large batches keep all streams busy, one more thread, if the engine allows it, runs what
    small requests wait, at the same time.
    """

    def __init__(
        self, engine: Engine, *, limits: Limits, max_queue_tokens: int, max_cache_bytes: int = 0
    ) -> None:
        """Start the threads.

        Args:
            engine: Closed by the scheduler, in the last of the threads that ran it.
            limits: What one batch may hold.
            max_queue_tokens: Tokens that may wait. A request that is larger by itself is taken
                when nothing else waits, so every request can be answered at some time.
            max_cache_bytes: Memory for results to answer the same inputs with again; 0 keeps none.
        """
        self._engine = engine
        self._limits = limits
        self._max_queue_tokens = max_queue_tokens
        self._cache = ResultCache(max_cache_bytes) if max_cache_bytes else None
        self._lock = threading.Lock()
        self._engine_wakes = threading.Condition(self._lock)
        self._express_wakes = threading.Condition(self._lock)
        self._delivery_wakes = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        # All below is guarded by the lock.
        self._jobs: set[Job] = set()
        self._waiting: Waiting[Target] = Waiting()
        self._retries: deque[_Work] = deque()
        self._ready: _Work | None = None
        self._finished: deque[_Work] = deque()
        self._num_busy = 0
        self._num_large = 0
        self._is_delivering = False
        self._num_running = 0
        self._num_busy_tokens = 0
        self._num_streams = engine.num_streams
        self._has_express = engine.has_express
        self._num_open = engine.num_streams + engine.has_express
        self._closed: ClosedError | None = None
        self._is_broken = False
        self._totals = SchedulerStats()
        self._pace = Pace()
        # Daemons, because a runtime that nobody closed must not keep the process alive.
        self._threads = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
            for loop, name in (
                *[(self._run_engine, "embed-engine")] * self._num_streams,
                *[(self._run_express, "embed-express")] * engine.has_express,
                (self._run_delivery, "embed-delivery"),
            )
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, *, wait: bool = False) -> None:
        """Queue a job, or what the cache does not have of it; answer it here if that is nothing.

        Args:
            job: A fresh job.
            wait: Whether to wait for space instead of raising OverloadedError.

        Raises:
            OverloadedError: Too many tokens wait already.
            ClosedError: The scheduler is closed, or its threads are gone.
            EngineError: There is no memory for the vectors that the cache has.
        """
        # False in a process forked from the one that started them, too.
        if not all(thread.is_alive() for thread in self._threads):
            raise self._closed or ClosedError(
                "the runtime has no threads in this process; open it after the fork"
            )
        missing: Sequence[int] = range(job.num_inputs)
        num_tokens = job.num_tokens
        if self._cache is not None:
            missing = self._cache.answer(job)
            num_tokens = sum(job.inputs[index].num_tokens for index in missing)
        with self._lock:
            while missing and self._closed is None and not self._has_space(num_tokens):
                if not wait:
                    raise self._overloaded(num_tokens)
                self._space.wait()
            if self._closed is not None:
                raise ClosedError(str(self._closed))
            if missing:
                self._queue(job, missing, num_tokens)
                return
        job.is_open = False
        job.settle()

    def has_space(self, job: Job) -> bool:
        """Tell whether a job would be taken now, even if the cache had nothing of it."""
        with self._lock:
            return self._has_space(job.num_tokens)

    def stats(self) -> SchedulerStats:
        """Take a snapshot."""
        with self._lock:
            return replace(
                self._totals,
                waiting_inputs=self._waiting.num_inputs,
                waiting_tokens=self._waiting.num_tokens,
                running_inputs=self._num_running,
                cache=self._cache.stats() if self._cache else CacheStats(),
            )

    def close(self, *, drain: bool = True) -> None:
        """Take no more jobs, and return when all is answered and the engine closed.

        Args:
            drain: Whether jobs that were accepted are finished; otherwise all that are open get a
                ClosedError. The batch in the engine runs to its end either way.
        """
        # A forked process has the lock, but not the thread that may hold it.
        if not any(thread.is_alive() for thread in self._threads):
            return
        self._shut(ClosedError("the runtime is closed"), drop=not drain)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        if self._cache is not None:
            self._cache.clear()

    def _queue(self, job: Job, indices: Sequence[int], num_tokens: int) -> None:
        """Let these inputs of a job wait."""
        self._jobs.add(job)
        job.on_cancel = self._drop_cancelled
        is_small = len(indices) == 1 or num_tokens <= _SMALL_SHARE * self._limits.max_tokens
        job.rows = [
            self._waiting.add(job.inputs[index], job.output, (job, index), is_small=is_small)
            for index in indices
        ]
        self._wake()

    def _has_space(self, num_tokens: int) -> bool:
        waiting = self._waiting.num_tokens
        return not waiting or waiting + num_tokens <= self._max_queue_tokens

    def _overloaded(self, num_tokens: int) -> OverloadedError:
        """Say when a request could succeed, judged by the engine's recent pace."""
        waiting = self._waiting.num_tokens
        seconds = self._pace.seconds_for(waiting)
        return OverloadedError(
            f"the queue is full: {waiting} tokens wait, this request has {num_tokens}, and"
            f" max_queue_tokens={self._max_queue_tokens}; try again in {seconds} s",
            retry_after_seconds=seconds,
        )

    def _wake(self) -> None:
        """Wake the threads that have something to do now; call after any change of state."""
        is_over = self._is_over()
        if is_over:
            self._engine_wakes.notify_all()
        elif self._ready or self._retries or self._waiting:
            self._engine_wakes.notify()
        if is_over or self._may_express():
            self._express_wakes.notify()
        if is_over or self._may_take_finished() or self._may_prepare():
            self._delivery_wakes.notify()

    def _is_over(self) -> bool:
        """Tell whether the threads can end."""
        is_done = self._is_broken or not self._num_running
        return self._closed is not None and not self._jobs and is_done

    def _may_take_finished(self) -> bool:
        """Tell whether a finished batch waits that nobody else's delivery stands before."""
        return bool(self._finished) and not self._is_delivering

    def _may_express(self) -> bool:
        """Tell whether small requests wait for the thread of their own."""
        is_long = self._num_large == self._num_streams
        return self._has_express and is_long and self._waiting.has_small

    def _may_prepare(self) -> bool:
        """Tell whether a batch should be prepared while the engine runs.

        It would wait for a stream, and take small requests along that need not.
        """
        return (
            self._num_busy > 0
            and not self._may_express()
            and self._ready is None
            and (bool(self._retries) or self._waiting.num_tokens >= self._limits.max_tokens)
        )

    def _take(self, *, small_only: bool = False) -> _Work | None:
        """Take the next batch out of the queue, failed ones first."""
        work = self._retries.popleft() if self._retries and not small_only else None
        if work is None and (rows := self._waiting.take(self._share(), small_only=small_only)):
            work = _Work(
                rows=rows,
                num_inputs=sum(row.num_wanted for row in rows),
                is_small=rows[0].is_small,
            )
        if work is not None:
            self._num_running += work.num_inputs
            self._space.notify_all()
        return work

    def _share(self) -> Limits:
        """Bound a batch beside others, so that all streams end at about the same time.

        Else one stream takes all that waits, and the others soon stand idle.
        """
        if not self._num_busy_tokens:
            return self._limits
        share = (self._waiting.num_tokens + self._num_busy_tokens) // self._num_streams
        return replace(self._limits, max_tokens=min(self._limits.max_tokens, share))

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; should it break, nobody waits for an answer for ever."""
        try:
            loop()
        except BaseException as error:  # noqa: BLE001, whatever it was
            self._is_broken = True
            self._shut(
                ClosedError(f"the runtime stopped: {type(error).__name__}: {error}"), drop=True
            )
        finally:
            if loop != self._run_delivery and self._is_last_stream():
                self._engine.close()

    def _is_last_stream(self) -> bool:
        """Take note that a stream's thread ends; tell whether the others have ended."""
        with self._lock:
            self._num_open -= 1
            return not self._num_open

    def _run_engine(self) -> None:
        """Run batch after batch until there is none and will be none."""
        while (work := self._next_work()) is not None:
            self._run(work)
            del work  # else it is kept, with all results of its jobs, until the next one comes

    def _run_express(self) -> None:
        """Do the same for small requests alone, while large batches keep the streams busy."""
        while (work := self._next_express()) is not None:
            self._run(work)
            del work

    def _run(self, work: _Work) -> None:
        """Run a batch, and have it delivered."""
        work.batch = work.batch or collate(work.rows)
        started = time.perf_counter()
        try:
            work.outputs = self._engine.run(work.batch)
        except Exception as error:  # noqa: BLE001, engines raise what their library does
            work.error = error
        work.seconds = time.perf_counter() - started
        with self._lock:
            self._num_busy -= 1
            self._num_busy_tokens -= work.batch.num_tokens
            self._num_large -= not work.is_small
            if delivers := self._may_deliver(work):
                self._is_delivering = True
            else:
                self._finished.append(work)
            self._wake()
        if delivers:
            self._deliver(work)

    def _may_deliver(self, work: _Work) -> bool:
        """Tell whether the engine's thread should deliver what it just finished."""
        if self._is_delivering or self._finished:  # a job takes its rows from one thread at a time
            return False
        is_idle = not (self._ready or self._retries or self._waiting)
        return is_idle or work.seconds < _QUICK_SECONDS

    def _next_work(self) -> _Work | None:
        """Wait for the engine's next batch; None when all is over."""
        while True:
            with self._lock:
                while (work := self._ready or self._take()) is None:
                    if self._is_over():
                        return None
                    self._engine_wakes.wait()
                self._ready = None
                is_wanted = self._begin(work)
            if is_wanted:
                return work

    def _next_express(self) -> _Work | None:
        """Wait until small requests must not wait for a stream; None when all is over."""
        while True:
            with self._lock:
                while not self._may_express() or (work := self._take(small_only=True)) is None:
                    if self._is_over():
                        return None
                    self._express_wakes.wait()
                is_wanted = self._begin(work)
            if is_wanted:
                return work

    def _begin(self, work: _Work) -> bool:
        """Take note of a batch that starts, unless nobody wants it any more."""
        rows = [row for row in work.rows if row.num_wanted]
        if rows and (work.job is None or work.job.is_open):
            if len(rows) < len(work.rows):
                work.rows, work.batch = rows, None
            self._num_busy += 1
            self._num_busy_tokens += sum(row.item.num_tokens for row in rows)
            self._num_large += not work.is_small
            self._wake()
            return True
        self._num_running -= work.num_inputs
        self._wake()
        return False

    def _run_delivery(self) -> None:
        """Deliver what the engine finished, and prepare one batch ahead."""
        while True:
            with self._lock:
                while not (self._may_take_finished() or self._may_prepare()):
                    if self._is_over():
                        return
                    self._delivery_wakes.wait()
                finished = ahead = None
                if self._may_take_finished():
                    finished = self._finished.popleft()
                    self._is_delivering = True
                else:
                    ahead = self._take()
            if finished is not None:
                self._deliver(finished)
            elif ahead is not None:
                ahead.batch = collate(ahead.rows)
                with self._lock:
                    self._ready = ahead
                    self._wake()
            del finished, ahead

    def _deliver(self, work: _Work) -> None:
        """Hand the results of a batch to its jobs, and answer those that are complete."""
        error = work.error or _find_fault(work)
        answers: dict[Job, EmbedError | None] = {}
        if error is None:
            self._scatter(work, answers)
        elif work.job is None and len(jobs := _jobs_of(work.rows)) > 1:
            # One input may be to blame, even that of a job which is gone by now; alone, it cannot
            # take the others down with it.
            retries = [_only(job, work.rows) for job in jobs if job.is_open]
            with self._lock:
                self._retries.extend(retries)
        else:
            for job in _jobs_of(work.rows):
                answers[job] = _to_engine_error(error)
        with self._lock:
            self._is_delivering = False
            self._count(work, is_failed=error is not None)
            settled = [job for job in answers if self._forget(job)]
            self._wake()
        for job in settled:
            job.settle(answers[job])

    def _scatter(self, work: _Work, answers: dict[Job, EmbedError | None]) -> None:
        """Give each row to its targets; note the jobs that this completes or that it spoils."""
        assert work.batch is not None
        starts = work.batch.cu_seqlens.tolist()
        sound = {name: bool(np.isfinite(values).all()) for name, values in work.outputs.items()}
        for number, row in enumerate(work.rows):
            start, stop = number, number + 1
            if row.output in TOKEN_OUTPUTS:
                start, stop = starts[number], starts[number + 1]
            values = work.outputs[row.output][start:stop]
            is_sound = sound[row.output] or bool(np.isfinite(values).all())
            if is_sound and self._cache is not None:
                self._cache.add(row, values)
            for job, index in row.targets:
                if not job.is_open or answers.get(job) is not None:
                    continue
                if not is_sound:
                    answers[job] = NotFiniteError(
                        f"the model gave values that are not finite for input {job.position(index)}"
                    )
                    continue
                try:
                    if job.receive(index, values, row.item.input_ids):
                        answers[job] = None
                except EngineError as error:
                    answers[job] = error

    def _count(self, work: _Work, *, is_failed: bool) -> None:
        """Add a batch to the totals."""
        assert work.batch is not None
        self._num_running -= work.num_inputs
        totals = self._totals
        if is_failed:
            totals.failed_batches += 1
            totals.failures_in_a_row += 1
            return
        num_rows, num_tokens = work.batch.num_rows, work.batch.num_tokens
        totals.batches += 1
        totals.rows += num_rows
        totals.tokens += num_tokens
        totals.attention_slots += num_rows * int(work.batch.lengths.max())
        totals.deduplicated += work.num_inputs - num_rows
        totals.engine_seconds += work.seconds
        totals.failures_in_a_row = 0
        self._pace.add(num_tokens, work.seconds / self._num_streams)

    def _forget(self, job: Job) -> bool:
        """Strike a job off, with all that still waits for it.

        Returns:
            Whether it was open: then the caller, and nobody else, settles it.
        """
        if not job.is_open:
            return False
        job.is_open = False
        self._jobs.discard(job)
        for row in job.rows:
            self._waiting.drop(row)
        self._space.notify_all()
        return True

    def _drop_cancelled(self, job: Job) -> None:
        """Take a job that its caller cancelled out of the queue."""
        with self._lock:
            is_mine = self._forget(job)
            self._wake()
        if is_mine:
            job.settle()

    def _shut(self, error: ClosedError, *, drop: bool) -> None:
        """Take no more jobs, for this reason; with `drop` answer the open ones with it."""
        with self._lock:
            self._closed = self._closed or error
            settled = [job for job in list(self._jobs) if drop and self._forget(job)]
            self._space.notify_all()
            self._wake()
        for job in settled:
            job.settle(ClosedError(str(error)))


def _to_engine_error(error: Exception) -> EngineError:
    """Make an error for one job: each gets its own, for raising one changes it."""
    name = "" if isinstance(error, EmbedError) else f"{type(error).__name__}: "
    failure = EngineError(f"the engine failed on a batch: {name}{error}")
    failure.__cause__ = error
    return failure


def _find_fault(work: _Work) -> EngineError | None:
    """Check that the engine gave what it was asked for, in the shapes it was asked for."""
    assert work.batch is not None
    for name in work.batch.outputs:
        expected = work.batch.num_tokens if name in TOKEN_OUTPUTS else work.batch.num_rows
        values = work.outputs.get(name)
        if values is None:
            return EngineError(f"the output {name!r} is missing")
        if values.ndim != 2 or len(values) != expected:
            return EngineError(f"the output {name!r} has shape {values.shape}, not {expected} rows")
    return None


def _jobs_of(rows: Iterable[Row[Target]]) -> list[Job]:
    """List the jobs that these rows were for, each once, in the order of the rows."""
    return list(dict.fromkeys(job for row in rows for job, _ in row.targets))


def _only(job: Job, rows: Iterable[Row[Target]]) -> _Work:
    """Make a batch of one job's share in these rows."""
    own = [
        Row(row.item, row.output, targets)
        for row in rows
        if (targets := [target for target in row.targets if target[0] is job])
    ]
    return _Work(rows=own, num_inputs=sum(row.num_wanted for row in own), job=job)
