"""From nothing to the first vector: disk, seconds, memory."""

from benchmarks.records.base import Record, Result
from embed_runtime.types import Precision


class Start(Record, frozen=True, kw_only=True):
    """One process, from its start to its first vector.

    Attributes:
        seconds: From the start of the process to the vector in the caller's hands.
        resident_bytes: Memory afterwards, pages of mapped files included.
        private_bytes: Memory afterwards that the process shares with no other and no file.
    """

    seconds: float
    resident_bytes: int
    private_bytes: int


class EngineStart(Record, frozen=True, kw_only=True):
    """Starts with one engine, in an environment that has nothing more than it needs.

    Attributes:
        engine: What computes.
        precision: Of weights and activations.
        extras: Of this project, in the environment; none where that of the benchmark was taken.
        environment_bytes: Size of the environment on disk; None where it was taken.
        server: `embed-serve`, one after another.
        offline: `Runtime` in a script, one after another.
    """

    engine: str
    precision: Precision
    extras: tuple[str, ...]
    environment_bytes: int | None
    server: tuple[Start, ...]
    offline: tuple[Start, ...]


class StartupResult(Result, frozen=True, kw_only=True, tag="startup"):
    """From nothing to the first vector, with one model."""

    model: str
    num_threads: int
    engines: tuple[EngineStart, ...]
