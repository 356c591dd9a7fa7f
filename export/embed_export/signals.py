"""Stop signals that unwind the stack, so that everything opened is closed and removed."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_signals_raise() -> Generator[None, None, None]:
    """Make SIGTERM and SIGHUP unwind the stack, as Ctrl-C does; by default they end the process."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    with _handler(stop, when=lambda installed: installed is signal.SIG_DFL):
        yield


@contextmanager
def stop_signals_wait() -> Generator[None, None, None]:
    """Let a short block that must be whole end before a stop signal takes effect."""
    held: list[int] = []
    with _handler(lambda number, _: held.append(number), when=callable):
        yield
    for number in held:
        signal.raise_signal(number)


@contextmanager
def _handler(
    handler: Callable[[int, FrameType | None], object], *, when: Callable[[object], bool]
) -> Generator[None, None, None]:
    """Handle stop signals for the block, each whose handler so far is one that `when` names."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may, and only it is interrupted by signals.
        return
    numbers = [number for number in _STOP_SIGNALS if when(signal.getsignal(number))]
    installed = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, previous in installed:
            signal.signal(number, previous)
