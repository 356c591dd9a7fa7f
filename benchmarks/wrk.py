"""The load generator wrk: streams of requests from files."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records.load import LoadFigures

_SCRIPT = Path(__file__).with_name("load.lua")
# A list of long documents may take longer than the 2 s after which wrk counts a failure.
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Requests that one client sends, each connection its next one after an answer.

    Attributes:
        url: Where to.
        bodies: File with a request body in each line, sent in turn.
        connections: Requests at a time.
        seconds: For how long.
        pause_milliseconds: Between an answer and a connection's next request.
    """

    url: str
    bodies: Path
    connections: int
    seconds: int
    pause_milliseconds: int = 0


def find_wrk() -> str:
    """Find the load generator.

    Raises:
        FileNotFoundError: It is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise FileNotFoundError("wrk is not installed; Debian and Ubuntu: apt install wrk")
    return path


def run_streams(streams: Sequence[Stream], *, cores: Sequence[int]) -> list[LoadFigures]:
    """Send streams at the same time, each from a process of its own on these cores.

    Raises:
        FileNotFoundError: wrk is not installed.
        RuntimeError: wrk failed.
    """
    wrk = find_wrk()
    clients = [_start(wrk, stream, cores) for stream in streams]
    outputs = [client.communicate()[0] for client in clients]
    if any(client.returncode for client in clients):
        raise RuntimeError("wrk failed; its own message is above")
    return [_figures(stream, output) for stream, output in zip(streams, outputs, strict=True)]


def on_cores(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """Pin a command to cores, by their place among those that there are."""
    there = sorted(os.sched_getaffinity(0))
    chosen = [str(there[core]) for core in cores if core < len(there)]
    return ["taskset", "-c", ",".join(chosen), *command] if chosen else list(command)


def _start(wrk: str, stream: Stream, cores: Sequence[int]) -> subprocess.Popen[str]:
    command = [
        wrk, "-t1", f"-c{stream.connections}", f"-d{stream.seconds}s",
        "--timeout", f"{_TIMEOUT_SECONDS}s", "-s", str(_SCRIPT), stream.url,
    ]  # fmt: skip
    environment = os.environ | {
        "LOAD_BODIES": str(stream.bodies),
        "LOAD_PAUSE": str(stream.pause_milliseconds),
    }
    return subprocess.Popen(
        on_cores(command, cores), env=environment, stdout=subprocess.PIPE, text=True
    )


def _figures(stream: Stream, output: str) -> LoadFigures:
    figures = json.loads(output.splitlines()[-1])
    return LoadFigures(
        connections=stream.connections,
        requests=figures["requests"],
        seconds=figures["microseconds"] / 1e6,
        p50_milliseconds=figures["p50"] / 1000,
        p99_milliseconds=figures["p99"] / 1000,
        failures=figures["errors"],
    )
