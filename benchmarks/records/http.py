"""Servers with a real model under load, each beside what its engine does without a server."""

from benchmarks.records.base import Record, Result
from benchmarks.records.comparison import Texts
from benchmarks.records.load import LoadFigures
from embed_runtime.types import Precision


class AlonePass(Record, frozen=True, kw_only=True):
    """The same texts without a server.

    Attributes:
        texts_per_second: All of them in one call of `Runtime.embed`.
        embed_milliseconds: Median of one text in a call of `Runtime.embed`.
        cached_milliseconds: The same, of a text whose vector the result cache has.
        engine_milliseconds: Median of one text, already tokens, in a call of the engine.
    """

    texts_per_second: float
    embed_milliseconds: float
    cached_milliseconds: float
    engine_milliseconds: float


class HttpSystem(Record, frozen=True, kw_only=True):
    """One server.

    Attributes:
        name: The system.
        engine: What computes in it.
        precision: Of weights and activations.
        many: Load with many connections, one for each round.
        one: Load with one connection, one for each round.
        alone: Without a server, one for each round; only of this project.
        memory_bytes: Resident memory of its processes after all rounds.
    """

    name: str
    engine: str
    precision: Precision
    many: tuple[LoadFigures, ...]
    one: tuple[LoadFigures, ...]
    alone: tuple[AlonePass, ...]
    memory_bytes: int


class HttpResult(Result, frozen=True, kw_only=True, tag="http"):
    """Servers side by side, one text in a request.

    Attributes:
        model: Which model.
        num_threads: Threads each may compute with.
        texts: What they read.
        systems: In the order in which they took turns in the first round.
    """

    model: str
    num_threads: int
    texts: Texts
    systems: tuple[HttpSystem, ...]
