"""One measured subject in a process of its own: its threads and memory disturb no other."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

OutcomeT = TypeVar("OutcomeT")
OutcomeT_co = TypeVar("OutcomeT_co", covariant=True)

_CONTEXT = multiprocessing.get_context("spawn")


class Subject(Protocol[OutcomeT_co]):
    """What a worker measures."""

    def run(self) -> None:
        """Do one pass; the worker times it."""
        ...

    def outcome(self) -> OutcomeT_co:
        """Say what the passes gave; it travels to the parent process."""
        ...

    def close(self) -> None:
        """Free what the subject holds."""
        ...


class Worker(Generic[OutcomeT]):
    """Handle of a child process that holds one subject.

    Attributes:
        load_seconds: How long opening the subject took, imports included.
    """

    load_seconds: float

    def __init__(self, name: str, open_subject: Callable[[], Subject[OutcomeT]]) -> None:
        """Start the child and wait until its subject is open.

        Args:
            name: For messages.
            open_subject: Runs in the child; must be picklable.

        Raises:
            RuntimeError: The child stopped; its traceback is on stderr.
        """
        self._name = name
        self._connection, child = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(child, open_subject), daemon=True)
        self._process.start()
        child.close()
        self.load_seconds = self._receive()

    def run(self) -> float:
        """Do one pass and return its seconds."""
        self._connection.send("run")
        seconds: float = self._receive()
        return seconds

    def finish(self) -> tuple[OutcomeT, int]:
        """Return the subject's outcome and the child's peak memory in bytes."""
        self._connection.send("finish")
        answer: tuple[OutcomeT, int] = self._receive()
        return answer

    def close(self) -> None:
        """End the child; safe to call twice."""
        self._connection.close()
        self._process.join(timeout=30)
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError as error:
            self._process.join()
            raise RuntimeError(f"{self._name} stopped; its own message is above") from error


def _serve(connection: Connection, open_subject: Callable[[], Subject[object]]) -> None:
    """Hold the subject and answer the parent until it hangs up: the child's whole life."""
    started = time.perf_counter()
    with connection, closing(open_subject()) as subject:
        connection.send(time.perf_counter() - started)
        while True:
            try:
                command = connection.recv()
            except EOFError:
                return
            if command == "run":
                started = time.perf_counter()
                subject.run()
                connection.send(time.perf_counter() - started)
            else:
                connection.send((subject.outcome(), _peak_memory_bytes()))


def _peak_memory_bytes() -> int:
    """Read the high-water mark of this process's resident memory.

    Not from getrusage: a child inherits the parent's peak there.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
