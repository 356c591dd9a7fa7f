"""A server under load, from a load generator that is not Python, on a core of its own."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tokenizers import Tokenizer

from benchmarks.bodies import write_bodies
from benchmarks.bundles import choose_engine
from benchmarks.records.serving import ServingMeasurement
from benchmarks.servers import RunningServer, our_server, start_server
from benchmarks.wrk import Stream, run_streams
from embed_export.corpus import real_texts
from embed_runtime.manifest import TOKENIZER_NAME

Kind: TypeAlias = Literal["text", "64 texts", "64 lists of ids"]
KINDS: tuple[Kind, ...] = ("text", "64 texts", "64 lists of ids")

_LIST_LENGTH = 64
_NUM_BODIES = 200
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent.

    Attributes:
        kind: Inputs of one request.
        connections: Requests at a time.
        seconds: For how long.
        num_words: Words of one text, drawn from the corpus; 8 are about 13 tokens of MiniLM.
    """

    kind: Kind
    connections: int
    seconds: int
    num_words: int = 8

    @property
    def num_inputs(self) -> int:
        """Inputs of one request."""
        return 1 if self.kind == "text" else _LIST_LENGTH


def measure_serving(
    bundle: Path, loads: Sequence[Load], *, num_cores: int
) -> Iterator[ServingMeasurement]:
    """Start a server on the first cores and put loads on it, one after another.

    The load generator has the next core to itself, where there is one.
    """
    spec = our_server(bundle, choose_engine(bundle), num_threads=num_cores)
    with start_server(spec, cores=range(num_cores)) as server:
        for load in loads:
            yield _measure(server, _bodies(bundle, load), load, core=num_cores)


def _measure(server: RunningServer, bodies: Path, load: Load, *, core: int) -> ServingMeasurement:
    stream = Stream(
        url=server.url, bodies=bodies, connections=load.connections, seconds=load.seconds
    )
    before = server.process.cpu_times()
    [figures] = run_streams([stream], cores=[core])
    after = server.process.cpu_times()
    return ServingMeasurement(
        kind=load.kind,
        connections=load.connections,
        requests_per_second=figures.requests_per_second,
        vectors_per_second=figures.requests_per_second * load.num_inputs,
        p50_milliseconds=figures.p50_milliseconds,
        p99_milliseconds=figures.p99_milliseconds,
        failures=figures.failures,
        cpu_microseconds_per_vector=1e6
        * (after.user + after.system - before.user - before.system)
        / max(1, figures.requests * load.num_inputs),
        memory_bytes=server.memory_bytes(),
    )


def _bodies(bundle: Path, load: Load) -> Path:
    """Write requests, no text in two of them."""
    words = " ".join(real_texts(800)).split()
    chooser = random.Random(_SEED)  # noqa: S311 - not a secret
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER_NAME))
    inputs: list[object] = []
    for _ in range(_NUM_BODIES):
        texts = [" ".join(chooser.choices(words, k=load.num_words)) for _ in range(load.num_inputs)]
        if load.kind == "text":
            inputs.append(texts[0])
        elif load.kind == "64 texts":
            inputs.append(texts)
        else:
            inputs.append([encoding.ids for encoding in tokenizer.encode_batch(texts)])
    return write_bodies("serving", inputs)
