"""The pieces of which all reports are made."""

from collections.abc import Iterable, Sequence

from benchmarks.records.base import Run


def run_line(run: Run, *details: str) -> str:
    """Say when, where, at which commit and by which command something was measured."""
    where = ", ".join([run.date, run.machine.cpu, f"{run.machine.num_cores} cores", *details])
    return f"{where}, commit {run.commit}: `{run.command}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)
    )


def mebibytes(num_bytes: int) -> str:
    """Write an amount of memory: `1,024 MiB`."""
    return f"{num_bytes / 2**20:,.0f} MiB"
