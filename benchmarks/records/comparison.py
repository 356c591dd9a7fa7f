"""Systems side by side, offline."""

from benchmarks.records.base import Record, Result
from embed_runtime.types import Precision


class Texts(Record, frozen=True, kw_only=True):
    """Lengths of a workload's texts, in tokens as the model reads them."""

    num_texts: int
    num_tokens: int
    mean: float
    median: float
    p95: float
    max: int


class Ceiling(Record, frozen=True, kw_only=True):
    """Rate of matrix products of the model's shapes, measured between the systems' passes."""

    precision: Precision
    flops_per_second: float
    spread: float


class Measurement(Record, frozen=True, kw_only=True):
    """One system on one workload.

    Attributes:
        name: The system.
        engine: What computes in it.
        precision: Of weights and activations.
        seconds: Each timed pass, in the order of the rounds.
        spread: Slowest minus fastest pass, over the median.
        tokens_per_second: Real tokens over the median pass.
        texts_per_second: Texts over the median pass.
        ratio: Median over the rounds of the baseline's seconds over this system's.
        ratio_min: Smallest such ratio of one round.
        ratio_max: Largest.
        share_of_ceiling: Operations needed without padding, per second, over the ceiling of this
            precision.
        min_cosine: Smallest cosine to the baseline's vector of the same text.
        padding_share: Share of token slots that were padding; None if not known.
        load_seconds: From process start to ready, imports included.
        peak_memory_bytes: Resident memory of its process at its highest.
    """

    name: str
    engine: str
    precision: Precision
    seconds: tuple[float, ...]
    spread: float
    tokens_per_second: float
    texts_per_second: float
    ratio: float
    ratio_min: float
    ratio_max: float
    share_of_ceiling: float
    min_cosine: float
    padding_share: float | None
    load_seconds: float
    peak_memory_bytes: int


class WorkloadResult(Record, frozen=True, kw_only=True):
    """All systems on one workload; the first measurement is the baseline."""

    name: str
    texts: Texts
    num_flops: int
    ceilings: tuple[Ceiling, ...]
    measurements: tuple[Measurement, ...]


class ComparisonResult(Result, frozen=True, kw_only=True, tag="comparison"):
    """Systems compared on one or several workloads."""

    num_threads: int
    num_rounds: int
    workloads: tuple[WorkloadResult, ...]
