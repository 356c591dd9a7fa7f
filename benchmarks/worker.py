"""One measured subject in a process of its own: its threads and memory disturb no other."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

ROOT = Path(__file__).parents[1]
_END_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave.

    Attributes:
        result: What the subject's method returned, as JSON can carry it.
        seconds: How long the method took, measured beside it.
    """

    result: Any
    seconds: float


class Worker:
    """Handle of a child process that holds one subject, in this environment or another.

    Attributes:
        load_seconds: From process start until its subject was open, imports included.
    """

    load_seconds: float

    def __init__(
        self,
        name: str,
        subject: str,
        settings: Mapping[str, object],
        *,
        interpreter: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the child and wait until its subject is open.

        Args:
            name: For messages.
            subject: `module:name` of a class; it is imported in the child only.
            settings: Its arguments, as JSON can carry them.
            interpreter: Python of the child; None for this one.
            environment: Variables of the child beside those of this process.

        Raises:
            RuntimeError: The child stopped; its traceback is on stderr.
        """
        self._name = name
        self._started = time.perf_counter()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [str(interpreter or sys.executable), "-m", "benchmarks.child", subject],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
        )
        try:
            self._send(settings)
            self._receive()
        except BaseException:
            self.close()
            raise
        self.load_seconds = self.age_seconds

    @property
    def age_seconds(self) -> float:
        """Seconds since the child was started."""
        return time.perf_counter() - self._started

    def call(self, method: str, **arguments: object) -> Answer:
        """Call a method of the subject with what JSON can carry.

        Raises:
            RuntimeError: The child stopped; its traceback is on stderr.
        """
        self._send({"method": method, "arguments": arguments})
        return self._receive()

    def peak_memory_bytes(self) -> int:
        """Add up the highest resident memory of the child and of each process it started."""
        child = psutil.Process(self._process.pid)
        return sum(peak_memory_bytes(p.pid) for p in (child, *child.children(recursive=True)))

    def close(self) -> None:
        """End the child; safe to call twice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # The child has ended already.
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, document: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._stopped() from error

    def _receive(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._stopped()
        return Answer(**json.loads(line))

    def _stopped(self) -> RuntimeError:
        return RuntimeError(f"{self._name} stopped; its own message is above")


def peak_memory_bytes(pid: int) -> int:
    """Read the high-water mark of a process's resident memory; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    words = status.partition("VmHWM:")[2].split()
    return int(words[0]) * 1024 if words else 0
