"""A server without a model under load: one table."""

from benchmarks.records.serving import ServingMeasurement, ServingResult
from benchmarks.reports.markdown import mebibytes, run_line, table

_HEADER = (
    "request", "connections", "requests/s", "vectors/s", "p50", "p99", "CPU per vector", "memory",
    "failures",
)  # fmt: skip


def serving_tables(result: ServingResult) -> list[str]:
    """Write a server's figures as one table."""
    return [
        run_line(result.run, "server and load generator on a core each"),
        table(_HEADER, map(_row, result.measurements)),
    ]


def _row(one: ServingMeasurement) -> tuple[str, ...]:
    return (
        one.kind,
        str(one.connections),
        f"{one.requests_per_second:,.0f}",
        f"{one.vectors_per_second:,.0f}",
        f"{one.p50_milliseconds:,.1f} ms",
        f"{one.p99_milliseconds:,.1f} ms",
        f"{one.cpu_microseconds_per_vector:,.0f} us",
        mebibytes(one.memory_bytes),
        str(one.failures),
    )
