"""The queue between callers and the engine: admission, the threads, one answer each."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from embed_runtime.batching import Limits, Waiting
from embed_runtime.engines import Engine
from embed_runtime.errors import ClosedError, OverloadedError
from embed_runtime.jobs import Job, Target
from embed_runtime.result_cache import ResultCache
from embed_runtime.stats import CacheStats, Pace, SchedulerStats
from embed_runtime.work import Work

# A request counts as small up to this share of a full batch; one input alone always does.
_SMALL_SHARE = 0.25
# A batch as quick as this is delivered by the engine's own thread: waking the other takes as long.
_QUICK_SECONDS = 0.0005


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
        self._retries: deque[Work] = deque()
        self._ready: Work | None = None
        self._finished: deque[Work] = deque()
        self._num_busy = 0
        self._num_large = 0
        self._is_delivering = False
        self._num_running = 0
        self._num_busy_tokens = 0
        self._num_streams = engine.num_streams
        self._has_express = engine.run_express is not None
        self._num_open = engine.num_streams + self._has_express
        self._closed: ClosedError | None = None
        self._is_broken = False
        self._totals = SchedulerStats()
        self._pace = Pace()
        run_next = partial(self._run_all, self._engine_wakes, self._take_next)
        run_small = partial(self._run_all, self._express_wakes, self._take_small)
        # Daemons, because a runtime that nobody closed must not keep the process alive.
        self._threads = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
            for loop, name in (
                *[(run_next, "embed-engine")] * self._num_streams,
                *[(run_small, "embed-express")] * self._has_express,
                (self._run_delivery, "embed-delivery"),
            )
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, *, wait: bool = False) -> None:
        """Queue a job, or what the cache does not have of it; answer it here if that is nothing.

        Args:
            job: A fresh job, or one that was refused because of the queue.
            wait: Whether to wait for space instead of raising OverloadedError.

        Raises:
            OverloadedError: Too many tokens wait already.
            ClosedError: The scheduler is closed, or its threads are gone.
            EngineError: There is no memory for the vectors that the cache has.
        """
        self.check_open()
        if job.missing is None:
            cache = self._cache
            job.missing = range(job.num_inputs) if cache is None else cache.answer(job)
        missing, num_tokens = job.missing, job.num_tokens
        if len(missing) < job.num_inputs:
            num_tokens = sum(job.inputs[index].num_tokens for index in missing)
        with self._lock:
            while missing and self._closed is None and not self._has_space(num_tokens):
                if not wait:
                    raise self._overloaded(num_tokens)
                self._space.wait()
            self._check_not_closed()
            if missing:
                self._queue(job, missing, num_tokens)
                return
        job.is_open = False
        job.settle()

    def check_open(self) -> None:
        """Tell before any work is done for a job that none would be taken.

        Raises:
            ClosedError: The scheduler is closed, or its threads are gone.
        """
        self._check_not_closed()
        # False in a process forked from the one that started them, too.
        if not all(thread.is_alive() for thread in self._threads):
            raise ClosedError("the runtime has no threads in this process; open it after the fork")

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

        Where a job's own callback calls this, it returns at once: the thread it runs in is one of
        those that have the rest to answer.

        Args:
            drain: Whether jobs that were accepted are finished; otherwise all that are open get a
                ClosedError. The batch in the engine runs to its end either way.
        """
        # A forked process has the lock, but not the thread that may hold it.
        if not any(thread.is_alive() for thread in self._threads):
            return
        self._shut(ClosedError("the runtime is closed"), drop=not drain)
        if threading.current_thread() in self._threads:
            return
        for thread in self._threads:
            thread.join()

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

    def _check_not_closed(self) -> None:
        """Raise an error of one's own: one that many callers raise grows with each of them."""
        if self._closed is not None:
            raise ClosedError(str(self._closed))

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

    def _take(self, *, small_only: bool = False) -> Work | None:
        """Take the next batch out of the queue, failed ones first."""
        work = self._retries.popleft() if self._retries and not small_only else None
        if work is None and (rows := self._waiting.take(self._share(), small_only=small_only)):
            work = Work(rows, is_small=rows[0].is_small, is_express=small_only)
        if work is not None:
            self._num_running += work.num_inputs
            self._space.notify_all()
        return work

    def _take_next(self) -> Work | None:
        """Take what a stream runs next: the batch prepared ahead, if there is one."""
        work, self._ready = self._ready, None
        return work or self._take()

    def _take_small(self) -> Work | None:
        """Take what the thread of small requests runs next, while they may have it."""
        return self._take(small_only=True) if self._may_express() else None

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
                if self._cache is not None:
                    self._cache.clear()

    def _is_last_stream(self) -> bool:
        """Take note that a stream's thread ends; tell whether the others have ended."""
        with self._lock:
            self._num_open -= 1
            return not self._num_open

    def _run_all(self, wakes: threading.Condition, take: Callable[[], Work | None]) -> None:
        """Run batch after batch until there is none and will be none."""
        while (work := self._next(wakes, take)) is not None:
            self._run(work)
            del work  # else it is kept, with all results of its jobs, until the next one comes

    def _next(self, wakes: threading.Condition, take: Callable[[], Work | None]) -> Work | None:
        """Wait for the next batch; None when all is over."""
        while True:
            with self._lock:
                while (work := take()) is None:
                    if self._is_over():
                        return None
                    wakes.wait()
                is_wanted = self._begin(work)
            if is_wanted:
                return work

    def _run(self, work: Work) -> None:
        """Run a batch, and have it delivered."""
        batch = work.run(self._engine)
        with self._lock:
            self._num_busy -= 1
            self._num_busy_tokens -= batch.num_tokens
            self._num_large -= not work.is_small
            if delivers := self._may_deliver(work):
                self._is_delivering = True
            else:
                self._finished.append(work)
            self._wake()
        if delivers:
            self._deliver(work)

    def _may_deliver(self, work: Work) -> bool:
        """Tell whether the engine's thread should deliver what it just finished."""
        if self._is_delivering or self._finished:  # a job takes its rows from one thread at a time
            return False
        is_idle = not (self._ready or self._retries or self._waiting)
        return is_idle or work.seconds < _QUICK_SECONDS

    def _begin(self, work: Work) -> bool:
        """Take note of a batch that starts, unless nobody wants it any more."""
        if work.drop_unwanted():
            self._num_busy += 1
            self._num_busy_tokens += sum(row.item.num_tokens for row in work.rows)
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
                ahead.collate()
                with self._lock:
                    self._ready = ahead
                    self._wake()
            del finished, ahead

    def _deliver(self, work: Work) -> None:
        """Hand the results of a batch to its jobs, and answer those that are complete."""
        retries = work.split()
        answers = {} if retries else work.answer(self._cache)
        with self._lock:
            self._is_delivering = False
            self._retries.extend(retries)
            self._count(work)
            settled = [job for job in answers if self._forget(job)]
            self._wake()
        for job in settled:
            job.settle(answers[job])

    def _count(self, work: Work) -> None:
        """Add a batch to the totals."""
        self._num_running -= work.num_inputs
        if work.error is not None:
            self._totals.add_failure()
            return
        assert work.batch is not None
        self._totals.add(work.batch, num_inputs=work.num_wanted, seconds=work.seconds)
        self._pace.add(work.batch.num_tokens, work.seconds / self._num_streams)

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
