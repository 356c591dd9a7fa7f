"""A server without a model under load."""

from benchmarks.records.base import Record, Result


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


class ServingResult(Result, frozen=True, kw_only=True, tag="serving"):
    """A server with the dummy engine under several loads: all that a server costs but the model."""

    seconds: int
    measurements: tuple[ServingMeasurement, ...]
