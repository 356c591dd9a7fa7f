"""Systems ready to be started: each with what it reads and the Python that runs it."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import CACHE, cached_folder
from benchmarks.environments import find_interpreter
from benchmarks.systems import SENTENCE_TRANSFORMERS, Peer
from benchmarks.worker import Worker
from benchmarks.workloads import Workload
from embed_runtime.types import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A system in one precision, with what it reads: ready to be started.

    Attributes:
        peer: The system.
        precision: What it computes in.
        path: Checkpoint or bundle.
        interpreter: Python that runs it; None for this one.
    """

    peer: Peer
    precision: Precision
    path: Path
    interpreter: Path | None = None

    def __str__(self) -> str:
        return f"{self.peer.name} {self.precision}"

    def open(self, workload: Workload, texts: Path, *, num_threads: int) -> Worker:
        """Start it in a process of its own, with as many threads as everyone has."""
        options: dict[str, object] = {
            "path": str(self.path),
            "precision": self.precision,
            "num_threads": num_threads,
            "max_tokens": workload.max_tokens,
        }
        if self.peer.backend is not None:
            options["backend"] = self.peer.backend
        return Worker(
            str(self),
            "benchmarks.peers.subject:PeerSubject",
            {"system": self.peer.system, "options": options, "texts": str(texts)},
            interpreter=self.interpreter,
            environment=thread_limits(num_threads) | {"HF_HUB_OFFLINE": "1"},
        )


def missing_environments(peer: Peer) -> list[str]:
    """Name the environments that a system needs and that are not set up."""
    needed = dict.fromkeys(filter(None, (peer.environment, peer.converter)))
    return [name for name in needed if find_interpreter(name) is None]


def interpreter_of(peer: Peer) -> Path | None:
    """Find the Python that runs a system; None for this one."""
    return None if peer.environment is None else find_interpreter(peer.environment)


def checkpoint_of(peer: Peer, workload: Workload) -> Path:
    """Find what a system reads, or have its library save it there: nobody converts at a start."""
    converter = peer.converter
    if converter is None:
        return workload.checkpoint

    def write(folder: Path) -> None:
        settings = {
            "path": str(workload.checkpoint),
            "output": str(folder),
            "backend": peer.reads,
        }
        with Worker(
            f"conversion by {converter}",
            f"{SENTENCE_TRANSFORMERS}:Conversion",
            settings,
            interpreter=find_interpreter(converter),
            environment={"HF_HUB_OFFLINE": "1"},
        ) as worker:
            worker.call("run")

    return cached_folder(CACHE / "converted" / converter / workload.name, write)


def thread_limits(num_threads: int) -> dict[str, str]:
    """Name the variables that limit the threads of OpenMP, MKL, OpenBLAS and tokenizers."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(num_threads))
