"""A progress display on stderr, for people who embed many texts."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def show_progress(total: int | None, *, show: bool) -> Generator[Callable[[int], None]]:
    """Show how many texts are done: with `rich` where it is installed, else as a plain line.

    Args:
        total: How many there will be; None if not known.
        show: Whether to show anything at all.

    Yields:
        A function to call with the number of texts just finished.
    """
    if not show:
        yield lambda _: None
        return
    try:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        yield from _plain_line(total)
        return
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("embedding", total=total)
        yield lambda count: progress.advance(task, count)


def _plain_line(total: int | None) -> Generator[Callable[[int], None]]:
    """Rewrite one line."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        sys.stderr.write(f"\rembedding {done}{'' if total is None else f'/{total}'} texts")
        sys.stderr.flush()

    try:
        yield advance
    finally:
        sys.stderr.write("\n")
