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


class Latency(Record, frozen=True, kw_only=True):
    """Times of single texts, one after another.

    Attributes:
        num_queries: How many were timed.
        mean_tokens: Mean length of these texts.
        p50_milliseconds: Median time.
        p99_milliseconds: 99th percentile.
    """

    num_queries: int
    mean_tokens: float
    p50_milliseconds: float
    p99_milliseconds: float


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
        mean_cosine: Mean of these cosines.
        padding_share: Share of token slots that were padding; None if not known.
        latency: Of single texts; this and the next two are None in results before they were
            measured.
        load_seconds: From process start to ready, imports included.
        startup_seconds: From process start to the first vector.
        peak_memory_bytes: Resident memory at its highest, of its process and of those it started.
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
    mean_cosine: float | None = None
    padding_share: float | None
    latency: Latency | None = None
    load_seconds: float
    startup_seconds: float | None = None
    peak_memory_bytes: int


class WorkloadResult(Record, frozen=True, kw_only=True):
    """All systems on one workload; the first measurement is the baseline.

    Attributes:
        name: The model.
        length: Tokens of every text; None for texts of mixed length.
        texts: What was embedded.
        num_flops: Operations one pass needs without padding.
        ceilings: One for each precision.
        measurements: One for each system and precision.
    """

    name: str
    length: int | None = None
    texts: Texts
    num_flops: int
    ceilings: tuple[Ceiling, ...]
    measurements: tuple[Measurement, ...]


class ComparisonResult(Result, frozen=True, kw_only=True, tag="comparison"):
    """Systems compared on one or several workloads."""

    num_threads: int
    num_rounds: int
    workloads: tuple[WorkloadResult, ...]
