"""How every command starts its result and ends with it: stored, drawn, printed."""

import logging
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import describe_machine, library_versions, source_commit
from benchmarks.records.base import Run
from benchmarks.reports import save_plot, to_markdown
from benchmarks.results import AnyResult, result_path, write_result

_LOG = logging.getLogger("benchmarks")


def describe_run() -> Run:
    """Say when, where, with what and by which command a result comes to be."""
    return Run(
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        commit=source_commit(),
        machine=describe_machine(),
        versions=library_versions(),
    )


def store(result: AnyResult, folder: Path, *words: str) -> None:
    """Write a result into a folder, named after what it is, then show it."""
    path = result_path(folder, result, *words)
    write_result(path, result)
    show(path, result)


def show(path: Path, result: AnyResult) -> None:
    """Print a stored result's tables and draw its picture beside it."""
    picture = path.with_suffix(".png")
    written = [path, picture] if save_plot(result, picture) else [path]
    sys.stdout.write(to_markdown(result))
    _LOG.info("stored: %s", " and ".join(map(str, written)))
