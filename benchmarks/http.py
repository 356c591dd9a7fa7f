"""Servers side by side, one text in a request: loads in turn, round after round."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.alone import AloneSpec
from benchmarks.records.http import AlonePass, HttpSystem
from benchmarks.records.load import LoadFigures
from benchmarks.servers import RunningServer, ServerSpec, start_server
from benchmarks.worker import Worker
from benchmarks.wrk import Stream, run_streams

CONNECTIONS = 32

_WARM_UP_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server, and the same bundle without one where it is this project's."""

    server: ServerSpec
    alone: AloneSpec | None = None


def measure_http(
    contenders: Sequence[Contender],
    bodies: Path,
    *,
    cores: Sequence[int],
    seconds: int,
    num_rounds: int,
) -> tuple[HttpSystem, ...]:
    """Start all servers; a round puts both loads on one after another.

    Every server, and every bundle without one, is warmed up. Each round starts with the next
    system.
    """
    with ExitStack() as stack:
        turns = [
            _Turn(
                stack.enter_context(start_server(one.server, cores=cores)),
                stack.enter_context(one.alone.start()) if one.alone else None,
                bodies=bodies,
                cores=cores,
            )
            for one in contenders
        ]
        for turn in turns:
            turn.warm_up()
        for first in range(num_rounds):
            for place in range(len(turns)):
                turns[(first + place) % len(turns)].run(seconds)
        return tuple(turn.finish() for turn in turns)


class _Turn:
    """What one contender does in a round."""

    def __init__(
        self,
        server: RunningServer,
        alone: Worker | None,
        *,
        bodies: Path,
        cores: Sequence[int],
    ) -> None:
        self._server = server
        self._alone = alone
        self._cores = cores
        self._stream = Stream(
            url=server.url, bodies=bodies, connections=CONNECTIONS, seconds=_WARM_UP_SECONDS
        )
        self._many: list[LoadFigures] = []
        self._one: list[LoadFigures] = []
        self._passes: list[AlonePass] = []

    def warm_up(self) -> None:
        """Use server and bundle once, and forget the figures."""
        run_streams([self._stream], cores=self._cores)
        if self._alone:
            self._alone.call("run")

    def run(self, seconds: int) -> None:
        """Measure many connections, one connection, and no server."""
        many = replace(self._stream, seconds=seconds)
        self._many += run_streams([many], cores=self._cores)
        self._one += run_streams([replace(many, connections=1)], cores=self._cores)
        if self._alone:
            self._passes.append(AlonePass(**self._alone.call("run").result))

    def finish(self) -> HttpSystem:
        """Say what all rounds gave."""
        spec = self._server.spec
        return HttpSystem(
            name=spec.name,
            engine=spec.engine,
            precision=spec.precision,
            many=tuple(self._many),
            one=tuple(self._one),
            alone=tuple(self._passes),
            memory_bytes=self._server.memory_bytes(),
        )
