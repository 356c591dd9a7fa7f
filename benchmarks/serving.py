"""A server under load, from a load generator that is not Python, on a core of its own."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import psutil
from tokenizers import Tokenizer

from benchmarks.checkpoints import CACHE
from benchmarks.records.serving import ServingMeasurement
from embed_export.corpus import real_texts
from embed_runtime.manifest import TOKENIZER_NAME

Kind: TypeAlias = Literal["text", "64 texts", "64 lists of ids"]
KINDS: tuple[Kind, ...] = ("text", "64 texts", "64 lists of ids")

_LIST_LENGTH = 64
_NUM_BODIES = 200
_LOAD_SCRIPT = Path(__file__).with_name("load.lua")
_READY = " on http://"
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


def find_wrk() -> str:
    """Find the load generator.

    Raises:
        FileNotFoundError: It is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise FileNotFoundError("wrk is not installed; Debian and Ubuntu: apt install wrk")
    return path


def measure_serving(
    bundle: Path, loads: Sequence[Load], *, num_cores: int, options: Sequence[str] = ()
) -> Iterator[ServingMeasurement]:
    """Start a server on the first cores and put loads on it, one after another.

    The load generator has the next core to itself, where there is one.
    """
    wrk = find_wrk()
    with _server(bundle, options, cores=range(num_cores)) as (process, url):
        for load in loads:
            yield _measure(wrk, url, process, _write_bodies(bundle, load), load, core=num_cores)


def _measure(
    wrk: str, url: str, process: psutil.Process, bodies: Path, load: Load, *, core: int
) -> ServingMeasurement:
    command = [
        wrk, "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "-s", str(_LOAD_SCRIPT),
        f"{url}/v1/embeddings",
    ]  # fmt: skip
    environment = os.environ | {"LOAD_BODIES": str(bodies)}
    before = process.cpu_times()
    run = subprocess.run(
        _on_cores(command, [core]), env=environment, check=True, capture_output=True, text=True
    )
    after = process.cpu_times()
    figures = json.loads(run.stdout.splitlines()[-1])
    rate = figures["requests"] / (figures["microseconds"] / 1e6)
    return ServingMeasurement(
        kind=load.kind,
        connections=load.connections,
        requests_per_second=rate,
        vectors_per_second=rate * load.num_inputs,
        p50_milliseconds=figures["p50"] / 1000,
        p99_milliseconds=figures["p99"] / 1000,
        failures=figures["errors"],
        cpu_microseconds_per_vector=1e6
        * (after.user + after.system - before.user - before.system)
        / max(1, figures["requests"] * load.num_inputs),
        memory_bytes=process.memory_info().rss,
    )


@contextmanager
def _server(
    bundle: Path, options: Sequence[str], *, cores: Sequence[int]
) -> Generator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "embed_server.cli", str(bundle), "--port", "0", *options]
    with subprocess.Popen(_on_cores(command, cores), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if _READY in line), None)
            if line is None:
                raise RuntimeError("embed-serve stopped; its own message is above")
            yield psutil.Process(process.pid), f"http://{line.rpartition('//')[2].strip()}"
        finally:
            process.terminate()


def _on_cores(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """Pin a command to cores, of those that there are."""
    there = sorted(os.sched_getaffinity(0))
    chosen = [str(there[core]) for core in cores if core < len(there)]
    return ["taskset", "-c", ",".join(chosen), *command] if chosen else list(command)


def _write_bodies(bundle: Path, load: Load) -> Path:
    """Write requests as lines of JSON, no text in two of them."""
    words = " ".join(real_texts(800)).split()
    chooser = random.Random(_SEED)  # noqa: S311 - not a secret
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER_NAME))
    path = CACHE / "bodies.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for _ in range(_NUM_BODIES):
            texts = [
                " ".join(chooser.choices(words, k=load.num_words)) for _ in range(load.num_inputs)
            ]
            inputs: object = texts[0] if load.kind == "text" else texts
            if load.kind == "64 lists of ids":
                inputs = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
            file.write(json.dumps({"input": inputs, "encoding_format": "base64"}) + "\n")
    return path
