"""From the start of a process to its first vector, over HTTP and in a script."""

import http.client
import json
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psutil

from benchmarks.records.startup import Start
from benchmarks.servers import free_port
from embed_runtime.manifest import EngineEntry

_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 60

# Says that the vector is there, and lives until it is asked to end.
_SCRIPT: Final = """
import sys
from embed_runtime import Runtime, RuntimeConfig
config = RuntimeConfig(num_threads=int(sys.argv[3]))
with Runtime(sys.argv[1], engine=sys.argv[2], config=config) as runtime:
    runtime.embed(["a text"])
    print("embedded", flush=True)
    sys.stdin.read()
"""


def start_server(python: Path, bundle: Path, engine: EngineEntry, *, num_threads: int) -> Start:
    """Start `embed-serve` and send one text as soon as it takes connections."""
    port = free_port()
    command = [
        str(python), "-m", "embed_server.cli", str(bundle), "--port", str(port),
        "--engine", engine.backend, "--num-threads", str(num_threads), "--log-level", "warning",
    ]  # fmt: skip
    with _process(command) as (popen, started), closing(_connect(port, popen)) as connection:
        body = json.dumps({"input": "a text"})
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"the first request was answered with {answer.status}")
        return _take(popen, started)


def start_script(python: Path, bundle: Path, engine: EngineEntry, *, num_threads: int) -> Start:
    """Start a script that opens the bundle and embeds one text."""
    command = [str(python), "-c", _SCRIPT, str(bundle), engine.backend, str(num_threads)]
    with _process(command) as (popen, started):
        assert popen.stdout is not None
        if popen.stdout.readline() != b"embedded\n":
            raise RuntimeError("the script stopped; its own message is above")
        return _take(popen, started)


@contextmanager
def _process(command: Sequence[str]) -> Generator[tuple[subprocess.Popen[bytes], float]]:
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        try:
            yield popen, started
        finally:
            popen.terminate()


def _connect(port: int, popen: subprocess.Popen[bytes]) -> http.client.HTTPConnection:
    """Connect as soon as somebody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    while popen.poll() is None:
        try:
            connection.connect()
        except ConnectionRefusedError:
            time.sleep(_POLL_SECONDS)
        else:
            return connection
    raise RuntimeError("embed-serve stopped; its own message is above")


def _take(popen: subprocess.Popen[bytes], started: float) -> Start:
    seconds = time.perf_counter() - started
    memory = psutil.Process(popen.pid).memory_full_info()
    return Start(seconds=seconds, resident_bytes=memory.rss, private_bytes=memory.uss)
