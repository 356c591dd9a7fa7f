"""`results/<date>-<machine>.json`: what was measured, where, with what, by which command."""

from pathlib import Path

import msgspec

from embed_runtime.types import Precision

SCHEMA_VERSION = 1


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An immutable part of a result; unknown keys are refused."""


class Machine(Record, frozen=True, kw_only=True):
    """Where it ran."""

    cpu: str
    num_cores: int
    memory_bytes: int
    system: str
    features: tuple[str, ...]


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


class Run(Record, frozen=True, kw_only=True):
    """When, where, with what and by which command something was measured."""

    schema_version: int = SCHEMA_VERSION
    date: str
    command: str
    commit: str
    machine: Machine
    versions: dict[str, str]


class WorkloadResult(Record, frozen=True, kw_only=True):
    """All systems on one workload; the first measurement is the baseline."""

    name: str
    texts: Texts
    num_flops: int
    ceilings: tuple[Ceiling, ...]
    measurements: tuple[Measurement, ...]


class Result(Run, frozen=True, kw_only=True):
    """One run of the benchmark."""

    num_threads: int
    num_rounds: int
    workloads: tuple[WorkloadResult, ...]


class ExportStep(Record, frozen=True, kw_only=True):
    """One step of an export.

    Attributes:
        title: As embed-export names it.
        seconds: How long it took.
        peak_memory_bytes: Resident memory at its highest, child processes included.
        peak_private_bytes: The same without pages of mapped files.
    """

    title: str
    seconds: float
    peak_memory_bytes: int
    peak_private_bytes: int


class ExportRun(Record, frozen=True, kw_only=True):
    """One export, then its bundle opened and used.

    Attributes:
        name: The model.
        num_parameters: Numbers in its weights.
        checkpoint_bytes: Size of its weight files.
        weights_bytes: Size of the weights in the bundle.
        precision: Of the bundle.
        engines: Which were built.
        steps: In order.
    """

    name: str
    num_parameters: int
    checkpoint_bytes: int
    weights_bytes: int
    precision: Precision
    engines: tuple[str, ...]
    steps: tuple[ExportStep, ...]


class ExportResult(Run, frozen=True, kw_only=True):
    """Exports measured by one command."""

    num_threads: int
    runs: tuple[ExportRun, ...]


class ServingMeasurement(Record, frozen=True, kw_only=True):
    """One server under one load.

    Attributes:
        kind: Inputs of a request.
        connections: Requests at a time.
        requests_per_second: Answered.
        vectors_per_second: In them.
        p50_milliseconds: Median time of a request.
        p99_milliseconds: 99th percentile.
        failures: Requests without a 2xx answer.
        cpu_microseconds_per_vector: Processor time of the server.
        memory_bytes: Resident memory of the server afterwards.
    """

    kind: str
    connections: int
    requests_per_second: float
    vectors_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    failures: int
    cpu_microseconds_per_vector: float
    memory_bytes: int


class ServingResult(Run, frozen=True, kw_only=True):
    """A server with the dummy engine under several loads: all that a server costs but the model."""

    seconds: int
    measurements: tuple[ServingMeasurement, ...]


def write_result(path: Path, result: Result | ExportResult | ServingResult) -> None:
    """Write a result as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def read_result(path: Path) -> Result:
    """Read a result; unknown keys and missing ones are errors."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
