"""From nothing to the first vector: one table."""

import statistics
from collections.abc import Sequence

from benchmarks.records.startup import EngineStart, Start, StartupResult
from benchmarks.reports.markdown import mebibytes, run_line, table

_HEADER = (
    "engine", "precision", "extras", "environment on disk", "how", "to the first vector",
    "fastest to slowest", "memory", "of it private",
)  # fmt: skip


def startup_tables(result: StartupResult) -> list[str]:
    """Write one line for each engine over HTTP, and one for it in a script."""
    rounds = len(result.engines[0].server)
    heading = (
        f"**{result.model}**: medians of {rounds} starts, files in memory; from the start of the"
        " process to the vector."
    )
    rows = [
        _row(engine, how, starts)
        for engine in result.engines
        for how, starts in (("embed-serve", engine.server), ("`Runtime`", engine.offline))
    ]
    return [
        run_line(result.run, f"{result.num_threads} threads"),
        heading,
        table(_HEADER, rows),
    ]


def _row(engine: EngineStart, how: str, starts: Sequence[Start]) -> tuple[str, ...]:
    seconds = [start.seconds for start in starts]
    size = engine.environment_bytes
    return (
        engine.engine,
        engine.precision,
        ", ".join(engine.extras) or "that of the benchmark",
        "-" if size is None else mebibytes(size),
        how,
        f"{statistics.median(seconds):.2f} s",
        f"{min(seconds):.2f} to {max(seconds):.2f} s",
        mebibytes(int(statistics.median(start.resident_bytes for start in starts))),
        mebibytes(int(statistics.median(start.private_bytes for start in starts))),
    )
