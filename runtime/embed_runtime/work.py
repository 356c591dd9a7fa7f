"""One batch on its way: rows out of the queue, through the engine, to the jobs they are for."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from embed_runtime.batching import Row, collate
from embed_runtime.engines import Engine
from embed_runtime.errors import EmbedError, EngineError, NotFiniteError
from embed_runtime.jobs import Job, Target
from embed_runtime.result_cache import ResultCache
from embed_runtime.types import TOKEN_OUTPUTS, Batch, FloatArray, OutputName


class Work:
    """A batch, and what became of it. One thread has it at a time.

    Attributes:
        rows: What it is made of.
        num_inputs: Inputs that wanted its results when it was made.
        num_wanted: Inputs that still did when the engine got it.
        job: The only job it is for, where a batch failed and each of its jobs is tried alone.
        is_small: Whether it is of small requests.
        is_express: Whether it passes large ones, in the thread that there is for that.
        batch: The rows laid out for the engine; None before that.
        error: Why there are no results.
        seconds: Time in the engine.
    """

    def __init__(
        self,
        rows: list[Row[Target]],
        *,
        job: Job | None = None,
        is_small: bool = False,
        is_express: bool = False,
    ) -> None:
        self.rows = rows
        self.num_inputs = sum(row.num_wanted for row in rows)
        self.num_wanted = self.num_inputs
        self.job = job
        self.is_small = is_small
        self.is_express = is_express
        self.batch: Batch | None = None
        self.error: Exception | None = None
        self.seconds = 0.0
        self._outputs: Mapping[OutputName, FloatArray] = {}

    def drop_unwanted(self) -> bool:
        """Leave out rows that nobody wants any more; tell whether it is still worth running."""
        rows = [row for row in self.rows if row.num_wanted]
        if len(rows) < len(self.rows):
            self.rows, self.batch = rows, None
        self.num_wanted = sum(row.num_wanted for row in rows)
        return bool(rows) and (self.job is None or self.job.is_open)

    def collate(self) -> Batch:
        """Lay the rows out, unless that is done."""
        if self.batch is None:
            self.batch = collate(self.rows)
        return self.batch

    def run(self, engine: Engine) -> Batch:
        """Have the engine compute it; what that raises is kept in `error`."""
        batch = self.collate()
        run = engine.run_express if self.is_express else engine.run
        assert run is not None
        started = time.perf_counter()
        try:
            self._outputs = run(batch)
        except Exception as error:  # noqa: BLE001, engines raise what their library does
            self.error = error
        self.seconds = time.perf_counter() - started
        self.error = self.error or _find_fault(batch, self._outputs)
        return batch

    def split(self) -> list["Work"]:
        """Take a batch that failed apart by its jobs.

        One input may be to blame, even that of a job which is gone by now; alone, it cannot take
        the others down with it. Or the way that small requests have for themselves is: the others
        are tried in the usual one.

        Returns:
            A batch for each job that is still open; none where nothing failed, or where it was
            one job's alone in the usual way.
        """
        if self.error is None or self.job is not None:
            return []
        jobs = _jobs_of(self.rows)
        if len(jobs) == 1 and not self.is_express:
            return []
        return [
            Work(_share_of(job, self.rows), job=job, is_small=self.is_small)
            for job in jobs
            if job.is_open
        ]

    def answer(self, cache: ResultCache | None) -> dict[Job, EmbedError | None]:
        """Give each row to the jobs that wait for it.

        Args:
            cache: Where results are kept, too.

        Returns:
            The jobs that have all their results now, with None; and those that will not get them,
            each with an error of its own, for raising one changes it.
        """
        if self.error is not None:
            return {job: _to_engine_error(self.error) for job in _jobs_of(self.rows)}
        assert self.batch is not None
        answers: dict[Job, EmbedError | None] = {}
        starts = self.batch.cu_seqlens.tolist()
        sound = {name: _is_sound(values) for name, values in self._outputs.items()}
        for number, row in enumerate(self.rows):
            start, stop = number, number + 1
            if row.output in TOKEN_OUTPUTS:
                start, stop = starts[number], starts[number + 1]
            values = self._outputs[row.output][start:stop]
            is_sound = sound[row.output] or _is_sound(values)
            if is_sound and cache is not None:
                cache.add(row, values)
            for job, index in row.targets:
                if job.is_open and answers.get(job) is None:
                    _give(job, index, row, values if is_sound else None, answers)
        return answers


def _give(
    job: Job,
    index: int,
    row: Row[Target],
    values: FloatArray | None,
    answers: dict[Job, EmbedError | None],
) -> None:
    """Give a job a result, None if it is not finite; note a job that this completes or spoils."""
    if values is None:
        answers[job] = NotFiniteError(
            f"the model gave values that are not finite for {job.name(index)}"
        )
        return
    try:
        if job.receive(index, values, row.item.input_ids):
            answers[job] = None
    except EngineError as error:
        answers[job] = error
    except Exception as error:  # noqa: BLE001, one job must not end the thread that serves all
        answers[job] = EngineError(f"the vectors of this request cannot be taken: {error!r}")


def _find_fault(batch: Batch, outputs: Mapping[OutputName, FloatArray]) -> EngineError | None:
    """Check that the engine gave what it was asked for, in the shapes it was asked for."""
    for name in batch.outputs:
        expected = batch.num_tokens if name in TOKEN_OUTPUTS else batch.num_rows
        values = outputs.get(name)
        if values is None:
            return EngineError(f"the output {name!r} is missing")
        if values.ndim != 2 or len(values) != expected:
            return EngineError(f"the output {name!r} has shape {values.shape}, not {expected} rows")
    return None


def _is_sound(values: FloatArray) -> bool:
    return bool(np.isfinite(values).all())


def _to_engine_error(error: Exception) -> EngineError:
    name = "" if isinstance(error, EmbedError) else f"{type(error).__name__}: "
    failure = EngineError(f"the engine failed on a batch: {name}{error}")
    failure.__cause__ = error
    return failure


def _jobs_of(rows: Sequence[Row[Target]]) -> list[Job]:
    """List the jobs that these rows were for, each once, in the order of the rows."""
    return list(dict.fromkeys(job for row in rows for job, _ in row.targets))


def _share_of(job: Job, rows: Sequence[Row[Target]]) -> list[Row[Target]]:
    """Make rows for one job of those it shares with others."""
    return [
        Row(row.item, row.output, targets)
        for row in rows
        if (targets := [target for target in row.targets if target[0] is job])
    ]
