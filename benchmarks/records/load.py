"""What a load generator saw."""

from benchmarks.records.base import Record


class LoadFigures(Record, frozen=True, kw_only=True):
    """One stream of requests, from its first to its last answer.

    Attributes:
        connections: Requests at a time.
        requests: Answered.
        seconds: It lasted.
        p50_milliseconds: Median time of a request.
        p99_milliseconds: 99th percentile. Both are wrk's: for each request that took more than
            twice the mean, it adds those that would have come meanwhile (wrk, stats_correct).
        failures: Requests without a 2xx answer.
    """

    connections: int
    requests: int
    seconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    failures: int

    @property
    def requests_per_second(self) -> float:
        """Answered in a second."""
        return self.requests / self.seconds
