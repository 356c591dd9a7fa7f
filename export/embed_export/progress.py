"""Shows what an export is doing, on standard error."""

import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called as parts of a step are done."""

    def __call__(self, done: int, total: int) -> None:
        """Say how many of how many parts are done."""
        ...


class Steps(Protocol):
    """Shows steps that follow one another."""

    def step(self, title: str) -> AbstractContextManager[Advance]:
        """Show a step for as long as the block runs."""
        ...

    def note(self, line: str) -> None:
        """Show one line that stays."""
        ...


class PlainSteps:
    """One line a step, with its seconds: for logs, and where `rich` is not installed.

    The lines go to standard output: a script finds nothing but the error on standard error.
    """

    @contextmanager
    def step(self, title: str) -> Generator[Advance, None, None]:
        """Print the step's line when it ends."""
        start = time.monotonic()
        yield _ignore
        self.note(f"{title}: {time.monotonic() - start:.1f} s")

    def note(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)


class QuietSteps:
    """Shows nothing: for callers that only want the bundle."""

    @contextmanager
    def step(self, title: str) -> Generator[Advance, None, None]:  # noqa: ARG002 - the protocol's
        """Show nothing."""
        yield _ignore

    def note(self, line: str) -> None:
        """Show nothing."""


class LiveSteps:
    """A spinner with the running step, its share and its seconds; done steps stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._columns = (
            SpinnerColumn(finished_text="[green]ok[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        self._make = Progress

    @contextmanager
    def step(self, title: str) -> Generator[Advance, None, None]:
        """Show the step's bar; it stays when the step is done."""
        with self._make(*self._columns, console=self._console) as progress:
            task = progress.add_task(title, total=None)

            def advance(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            yield advance
            progress.update(task, completed=1, total=1)

    def note(self, line: str) -> None:
        """Print a line above what is running."""
        self._console.print(line, markup=False, highlight=False)


def make_steps() -> Steps:
    """Choose by what standard error is: a terminal gets bars, a log gets lines."""
    if sys.stderr.isatty():
        try:
            return LiveSteps()
        except ImportError:
            return PlainSteps()
    return PlainSteps()


def _ignore(done: int, total: int) -> None:
    del done, total
