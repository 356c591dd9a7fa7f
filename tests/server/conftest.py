"""Apps over a dummy bundle, in this process and as real servers."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel


@pytest.fixture
def runtime(dummy_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    with Runtime(dummy_bundle()) as opened:
        yield opened


@pytest.fixture
def client(runtime: Runtime) -> TestClient:
    """Talk to an app that serves the dummy bundle without keys."""
    return TestClient(create_app([ServedModel.of(runtime)], ServerConfig()))


@dataclass(frozen=True, slots=True)
class Server:
    """A running `embed-serve`.

    Attributes:
        process: Its process.
        ready_line: What it said when it was ready.
        log: What it writes to stderr.
    """

    process: "subprocess.Popen[str]"
    ready_line: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.ready_line.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


StartServer = Callable[..., Server]

# Holds up the engine at a batch with three ids 9 in a row until somebody wrote to a named pipe.
GATED = """
import sys
from pathlib import Path
from embed_runtime.engines.dummy import DummyEngine
from embed_server.cli import main

run, gate = DummyEngine.run, Path(sys.argv.pop())

def gated_run(self, batch):
    if b"999" in bytes(batch.input_ids.clip(0, 10).astype("u1") + 48):
        gate.read_text()
    return run(self, batch)

DummyEngine.run = gated_run
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start `embed-serve` on a free port; with `gate`, a pipe that holds up inputs [9, 9, 9]."""
    with ExitStack() as stack:

        def start(bundle: Path, *options: str, gate: Path | None = None) -> Server:
            command = ["-m", "embed_server.cli"] if gate is None else ["-c", GATED]
            log = tmp_path / "server.log"
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *command, str(bundle), *options, "--port", "0"]
                    + ([] if gate is None else [str(gate)]),
                    stdout=subprocess.PIPE,
                    stderr=stack.enter_context(log.open("w")),
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            ready_line = process.stdout.readline().strip()
            assert " on http" in ready_line, log.read_text()
            return Server(process, ready_line, log)

        yield start
