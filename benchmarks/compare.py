"""Systems side by side on one workload: a pass of each in turn, round after round."""

import json
import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.checkpoints import CACHE
from benchmarks.contestants import Contestant
from benchmarks.figures import PeerRun, describe_texts, measurement, spread
from benchmarks.records.comparison import Ceiling, WorkloadResult
from benchmarks.worker import Worker
from benchmarks.workloads import Workload
from embed_runtime.types import Precision

_LOG = logging.getLogger("benchmarks")
T = TypeVar("T")

# A burst of single queries ends with whichever comes first.
_BURST = {"num_queries": 50, "seconds": 3.0}


def compare(
    workload: Workload, contestants: Sequence[Contestant], *, num_threads: int, num_rounds: int
) -> WorkloadResult:
    """Measure all systems on one workload; the first is the baseline.

    Every process is warmed up by one pass. A round is one pass of each process, one at a time;
    each round starts one process later than the round before. The matrix-product ceilings take
    turns like the systems: a slow minute of the machine slows them alike. Bursts of single queries
    follow, in turns of the same kind.

    A system that does not start is left out, unless it is the baseline.
    """
    precisions: dict[Precision, None] = dict.fromkeys(one.precision for one in contestants)
    with ExitStack() as stack:
        gauges = [
            stack.enter_context(_open_ceiling(workload, precision, num_threads))
            for precision in precisions
        ]
        opened = list(_open_all(stack, contestants, workload, num_threads))
        workers = [worker for _, worker, _ in opened]
        rates, seconds = _timed_passes(gauges, workers, num_rounds)
        queries = run_rounds([_burst(worker) for worker in workers], num_rounds)
        runs = [
            _finish(one, worker, startup, seconds=passes, bursts=bursts)
            for (one, worker, startup), passes, bursts in zip(opened, seconds, queries, strict=True)
        ]
    ceilings: dict[Precision, Ceiling] = {
        precision: Ceiling(
            precision=precision, flops_per_second=statistics.median(taken), spread=spread(taken)
        )
        for precision, taken in zip(precisions, rates, strict=True)
    }
    return WorkloadResult(
        name=workload.name,
        length=workload.length,
        texts=describe_texts(workload.lengths),
        num_flops=workload.num_flops,
        ceilings=tuple(ceilings.values()),
        measurements=tuple(measurement(workload, run, runs[0], ceilings) for run in runs),
    )


def _open_all(
    stack: ExitStack, contestants: Sequence[Contestant], workload: Workload, num_threads: int
) -> Iterator[tuple[Contestant, Worker, float]]:
    """Start systems one after another; give each with the seconds to its first vector."""
    texts = _write_texts(workload)
    for one in contestants:
        try:
            worker = stack.enter_context(one.open(workload, texts, num_threads=num_threads))
            worker.call("first_vector")
        except RuntimeError as error:
            if one is contestants[0]:
                raise
            _LOG.warning("left out: %s", error)
            continue
        yield one, worker, worker.age_seconds


def run_rounds(turns: Sequence[Callable[[], T]], num_rounds: int) -> list[list[T]]:
    """Warm everyone up with a turn, then let each take one per round.

    Returns:
        What the timed turns gave, one list for each, in the order of the rounds.
    """
    for turn in turns:
        turn()
    given: list[list[T]] = [[] for _ in turns]
    for first in range(num_rounds):
        for place in range(len(turns)):
            index = (first + place) % len(turns)
            given[index].append(turns[index]())
    return given


def _timed_passes(
    gauges: Sequence[Worker], workers: Sequence[Worker], num_rounds: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Give rates of the ceilings and seconds of the systems, out of the same rounds."""
    turns: list[Callable[[], float]] = [
        *((lambda gauge=gauge: float(gauge.call("run").result)) for gauge in gauges),
        *((lambda worker=worker: worker.call("embed").seconds) for worker in workers),
    ]
    given = run_rounds(turns, num_rounds)
    return given[: len(gauges)], given[len(gauges) :]


def _burst(worker: Worker) -> Callable[[], list[float]]:
    return lambda: list(worker.call("query", **_BURST).result)


def _write_texts(workload: Workload) -> Path:
    path = CACHE / "texts.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"texts": workload.texts, "queries": workload.queries}))
    return path


def _open_ceiling(workload: Workload, precision: Precision, num_threads: int) -> Worker:
    settings = {
        "precision": precision,
        "products": workload.shape.products,
        "num_threads": num_threads,
    }
    return Worker(f"{precision} ceiling", "benchmarks.ceiling:Ceiling", settings)


def _finish(
    contestant: Contestant,
    worker: Worker,
    startup_seconds: float,
    *,
    seconds: Sequence[float],
    bursts: Sequence[Sequence[float]],
) -> PeerRun:
    path = CACHE / "vectors.npy"
    outcome = worker.call("outcome", vectors=str(path)).result
    return PeerRun(
        contestant=contestant,
        engine=outcome["engine"],
        padding_share=outcome["padding_share"],
        vectors=np.load(path),
        seconds=seconds,
        query_seconds=[taken for burst in bursts for taken in burst],
        load_seconds=worker.load_seconds,
        startup_seconds=startup_seconds,
        peak_memory_bytes=worker.peak_memory_bytes(),
    )
