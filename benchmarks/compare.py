"""Systems side by side on one workload: a pass of each in turn, round after round."""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.ceiling import CeilingSpec
from benchmarks.peers import Outcome, PeerSpec
from benchmarks.records.comparison import Ceiling, Measurement, Texts, WorkloadResult
from benchmarks.worker import Worker
from benchmarks.workloads import Workload
from embed_runtime.types import FloatArray


class Turn(Protocol):
    """Something that takes its turn in every round."""

    def run(self) -> float:
        """Do one pass and return its seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one peer's process gave."""

    spec: PeerSpec
    outcome: Outcome
    seconds: list[float]
    load_seconds: float
    peak_memory_bytes: int


def compare(workload: Workload, peers: Sequence[PeerSpec], *, num_rounds: int) -> WorkloadResult:
    """Measure all peers on one workload; the first is the baseline.

    Every process is warmed up by one pass. A round is one pass of each process, one at a time;
    each round starts one process later than the round before, so that nobody always runs after
    the same neighbour. The matrix-product ceilings take turns like the peers: a slow minute of
    the machine slows them alike.
    """
    gauges = [_ceiling_spec(workload, spec) for spec in _first_of_each_precision(peers)]
    with ExitStack() as stack:
        gauge_workers = [
            stack.enter_context(Worker(f"{spec.precision} ceiling", spec)) for spec in gauges
        ]
        peer_workers = [
            stack.enter_context(Worker(f"{spec.name} {spec.precision}", spec)) for spec in peers
        ]
        seconds = run_rounds([*gauge_workers, *peer_workers], num_rounds)
        ceilings = {
            spec.precision: _ceiling(spec, worker.finish()[0][-num_rounds:])
            for spec, worker in zip(gauges, gauge_workers, strict=True)
        }
        runs: list[_Run] = []
        for spec, worker, passes in zip(peers, peer_workers, seconds[len(gauges) :], strict=True):
            outcome, peak_memory_bytes = worker.finish()
            runs.append(
                _Run(
                    spec=spec,
                    outcome=outcome,
                    seconds=passes,
                    load_seconds=worker.load_seconds,
                    peak_memory_bytes=peak_memory_bytes,
                )
            )
    return WorkloadResult(
        name=workload.name,
        texts=_describe_texts(workload),
        num_flops=workload.num_flops,
        ceilings=tuple(ceilings.values()),
        measurements=tuple(
            _measurement(workload, run, runs[0], ceilings[run.spec.precision]) for run in runs
        ),
    )


def run_rounds(turns: Sequence[Turn], num_rounds: int) -> list[list[float]]:
    """Warm everyone up with a pass, then let each do one per round.

    Returns:
        Seconds of the timed passes, one list for each, in the order of the rounds.
    """
    for turn in turns:
        turn.run()
    seconds: list[list[float]] = [[] for _ in turns]
    for first in range(num_rounds):
        for place in range(len(turns)):
            index = (first + place) % len(turns)
            seconds[index].append(turns[index].run())
    return seconds


def _first_of_each_precision(peers: Sequence[PeerSpec]) -> list[PeerSpec]:
    return list({spec.precision: spec for spec in reversed(peers)}.values())[::-1]


def _ceiling_spec(workload: Workload, peer: PeerSpec) -> CeilingSpec:
    return CeilingSpec(
        precision=peer.precision,
        products=workload.products,
        num_threads=peer.num_threads,
    )


def _ceiling(spec: CeilingSpec, rates: list[float]) -> Ceiling:
    return Ceiling(
        precision=spec.precision,
        flops_per_second=statistics.median(rates),
        spread=_spread(rates),
    )


def _describe_texts(workload: Workload) -> Texts:
    lengths = workload.lengths
    return Texts(
        num_texts=len(lengths),
        num_tokens=workload.num_tokens,
        mean=float(lengths.mean()),
        median=float(np.median(lengths)),
        p95=float(np.percentile(lengths, 95)),
        max=int(lengths.max()),
    )


def _measurement(workload: Workload, run: _Run, baseline: _Run, ceiling: Ceiling) -> Measurement:
    median = statistics.median(run.seconds)
    ratios = [theirs / ours for theirs, ours in zip(baseline.seconds, run.seconds, strict=True)]
    return Measurement(
        name=run.spec.name,
        engine=run.outcome.engine,
        precision=run.spec.precision,
        seconds=tuple(run.seconds),
        spread=_spread(run.seconds),
        tokens_per_second=workload.num_tokens / median,
        texts_per_second=len(workload.texts) / median,
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        share_of_ceiling=workload.num_flops / median / ceiling.flops_per_second,
        min_cosine=min_cosine(run.outcome.vectors, baseline.outcome.vectors),
        padding_share=run.outcome.padding_share,
        load_seconds=run.load_seconds,
        peak_memory_bytes=run.peak_memory_bytes,
    )


def min_cosine(ours: FloatArray, theirs: FloatArray) -> float:
    """Compare two sets of unit vectors row by row and return the worst row's cosine."""
    if ours.shape != theirs.shape:
        raise ValueError(f"vectors of shape {ours.shape} against {theirs.shape}")
    left, right = ours.astype(np.float64), theirs.astype(np.float64)
    cosines = (left * right).sum(1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return float(cosines.min())


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
