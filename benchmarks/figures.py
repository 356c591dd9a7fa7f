"""What seconds and vectors of a system amount to: rates, ratios, latency, cosines."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.contestants import Contestant
from benchmarks.records.comparison import Ceiling, Latency, Measurement, Texts
from benchmarks.workloads import Workload
from embed_runtime.types import FloatArray, IntArray, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """What one system's process gave."""

    contestant: Contestant
    engine: str
    padding_share: float | None
    vectors: FloatArray
    seconds: Sequence[float]
    query_seconds: Sequence[float]
    load_seconds: float
    startup_seconds: float
    peak_memory_bytes: int


def describe_texts(lengths: Sequence[int] | IntArray) -> Texts:
    """Say how long texts are that have so many tokens."""
    return Texts(
        num_texts=len(lengths),
        num_tokens=int(np.sum(lengths)),
        mean=float(np.mean(lengths)),
        median=float(np.median(lengths)),
        p95=float(np.percentile(lengths, 95)),
        max=int(np.max(lengths)),
    )


def measurement(
    workload: Workload, run: PeerRun, baseline: PeerRun, ceilings: Mapping[Precision, Ceiling]
) -> Measurement:
    """Turn a system's seconds and vectors into what is stored."""
    median = statistics.median(run.seconds)
    ratios = [theirs / ours for theirs, ours in zip(baseline.seconds, run.seconds, strict=True)]
    ceiling = ceilings[run.contestant.precision].flops_per_second
    row_cosines = cosines(run.vectors, baseline.vectors)
    return Measurement(
        name=run.contestant.peer.name,
        engine=run.engine,
        precision=run.contestant.precision,
        seconds=tuple(run.seconds),
        spread=spread(run.seconds),
        tokens_per_second=workload.num_tokens / median,
        texts_per_second=len(workload.texts) / median,
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        share_of_ceiling=workload.num_flops / median / ceiling,
        min_cosine=float(row_cosines.min()),
        mean_cosine=float(row_cosines.mean()),
        padding_share=run.padding_share,
        latency=Latency(
            num_queries=len(run.query_seconds),
            mean_tokens=workload.mean_query_tokens,
            p50_milliseconds=1000 * float(np.percentile(run.query_seconds, 50)),
            p99_milliseconds=1000 * float(np.percentile(run.query_seconds, 99)),
        ),
        load_seconds=run.load_seconds,
        startup_seconds=run.startup_seconds,
        peak_memory_bytes=run.peak_memory_bytes,
    )


def cosines(ours: FloatArray, theirs: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Compare two sets of vectors row by row: [N] float64."""
    if ours.shape != theirs.shape:
        raise ValueError(f"vectors of shape {ours.shape} against {theirs.shape}")
    left, right = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    given: np.ndarray[tuple[int], np.dtype[np.float64]] = (left * right).sum(1) / norms
    return given


def spread(values: Sequence[float]) -> float:
    """Give the largest minus the smallest value, over the median."""
    return (max(values) - min(values)) / statistics.median(values)
