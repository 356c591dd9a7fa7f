"""The servers that are compared, each started the way its documentation says."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.bodies import MODEL_NAME
from benchmarks.checkpoints import CACHE
from benchmarks.wrk import on_cores
from embed_runtime.manifest import EngineEntry
from embed_runtime.types import Precision

_READY_SECONDS = 180
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """A server to start; `{port}` in its command stands for the port.

    Attributes:
        name: In results.
        engine: What computes in it, with its version.
        precision: What it computes in.
        command: Program and arguments.
        path: Where it takes requests.
        environment: Variables beside those of this process.
    """

    name: str
    engine: str
    precision: Precision
    command: tuple[str, ...]
    path: str = "/v1/embeddings"
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that answers."""

    spec: ServerSpec
    url: str
    process: psutil.Process

    def memory_bytes(self) -> int:
        """Add up the resident memory of its processes; shared pages count in each."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes)


def our_server(bundle: Path, engine: EngineEntry, *, num_threads: int) -> ServerSpec:
    """Say how this project serves a bundle."""
    return ServerSpec(
        name="embed-runtime",
        engine=engine.producer,
        precision=engine.precision,
        command=(
            *(sys.executable, "-m", "embed_server.cli", str(bundle), "--port", "{port}"),
            *("--served-model-name", MODEL_NAME, "--num-threads", str(num_threads)),
            *("--engine", engine.backend),
        ),
    )


@contextmanager
def start_server(spec: ServerSpec, *, cores: Sequence[int]) -> Generator[RunningServer]:
    """Start a server on these cores and wait until it is healthy; end it afterwards.

    Raises:
        RuntimeError: It stopped, or was not ready in time; the message names its log.
    """
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in spec.command]
    log = CACHE / "servers" / f"{spec.name}-{spec.precision}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as output,
        subprocess.Popen(
            on_cores(command, cores),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | spec.environment,
        ) as popen,
    ):
        process = psutil.Process(popen.pid)
        try:
            _wait_until_healthy(popen, f"http://127.0.0.1:{port}/health", log)
            yield RunningServer(
                spec=spec, url=f"http://127.0.0.1:{port}{spec.path}", process=process
            )
        finally:
            _end(process)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(popen: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if popen.poll() is not None:
            raise RuntimeError(f"the server stopped; see {log}")
        try:
            with urllib.request.urlopen(url, timeout=_READY_SECONDS):  # noqa: S310 - always http
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the server is not ready after {_READY_SECONDS} s; see {log}")


def _end(process: psutil.Process) -> None:
    """Ask a server and its processes to stop, then stop those that do not."""
    family = [process, *process.children(recursive=True)] if process.is_running() else []
    for one in family[:1]:
        one.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for one in alive:
        one.kill()
