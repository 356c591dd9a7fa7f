"""`run`: this project against others, offline."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from subprocess import CalledProcessError

from benchmarks.bundles import find_bundle
from benchmarks.commands.options import add_export_again, add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.compare import compare
from benchmarks.contestants import Contestant, checkpoint_of, interpreter_of, missing_environments
from benchmarks.records.comparison import ComparisonResult
from benchmarks.systems import BASELINE, OURS, PEERS, Peer
from benchmarks.workloads import WORKLOADS, Length, Workload
from embed_runtime.types import Precision

_LOG = logging.getLogger("benchmarks")

# What takes minutes, not an hour.
_DEFAULT_WORKLOADS = ("all-MiniLM-L6-v2", "bge-base-size")
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
# Below, special tokens are most of a text.
_MIN_LENGTH = 8

HELP = "measure, store as JSON, print and plot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--toy", action="store_true", help="a tiny model in fp32: checks, not figures"
    )
    parser.add_argument(
        "--workload", choices=WORKLOADS, action="append", help="default: those that take minutes"
    )
    parser.add_argument(
        "--length",
        type=_length,
        action="append",
        metavar="N|max",
        help="texts of exactly so many tokens (default: real texts of mixed length)",
    )
    parser.add_argument(
        "--peer",
        choices=[peer.name for peer in PEERS],
        action="append",
        help="systems beside the baseline (default: all whose environments are set up)",
    )
    parser.add_argument(
        "--precision", choices=_PRECISIONS, action="append", help="of those systems (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed passes of each")
    add_export_again(parser)
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command: a result a workload, stored as soon as it is there."""
    names = options.workload or _DEFAULT_WORKLOADS
    precisions: Sequence[Precision] = options.precision or _PRECISIONS
    peers: Sequence[str] | None = options.peer
    if options.toy:
        names, peers = ["toy"], [OURS]
        precisions = ("fp32",)
    chosen = [peer for peer in PEERS if peers is None or peer.name in peers]
    for name in names:
        for length in options.length or [None]:
            workload = _open_workload(name, length)
            result = ComparisonResult(
                run=describe_run(),
                num_threads=options.threads,
                num_rounds=options.rounds,
                workloads=(
                    compare(
                        workload,
                        list(
                            _contestants(
                                workload, chosen, precisions, export_again=options.export_again
                            )
                        ),
                        num_threads=options.threads,
                        num_rounds=options.rounds,
                    ),
                ),
            )
            words = [name] if length is None else [name, f"{workload.length}-tokens"]
            store(result, options.output, *words)


def _open_workload(name: str, length: Length) -> Workload:
    try:
        return WORKLOADS[name](length)
    except ValueError as error:
        _LOG.error("error: %s", error)
        raise SystemExit(2) from error


def _contestants(
    workload: Workload,
    peers: Sequence[Peer],
    precisions: Sequence[Precision],
    *,
    export_again: bool,
) -> Iterator[Contestant]:
    """Get ready whoever is compared, the baseline first; say who is left out, and why."""
    yield Contestant(peer=BASELINE, precision="fp32", path=workload.checkpoint)
    for peer in peers:
        if missing := missing_environments(peer):
            _LOG.warning(
                "left out: %s; python -m benchmarks setup %s", peer.name, " ".join(missing)
            )
            continue
        for precision in peer.precisions:
            if precision in precisions and (peer, precision) != (BASELINE, "fp32"):
                contestant = _ready(workload, peer, precision, export_again=export_again)
                if contestant is not None:
                    yield contestant


def _ready(
    workload: Workload, peer: Peer, precision: Precision, *, export_again: bool
) -> Contestant | None:
    try:
        path = (
            find_bundle(workload, precision, export_again=export_again)
            if peer.name == OURS
            else checkpoint_of(peer, workload)
        )
    except (RuntimeError, CalledProcessError) as error:
        _LOG.warning("left out: %s %s; %s", peer.name, precision, error)
        return None
    return Contestant(peer=peer, precision=precision, path=path, interpreter=interpreter_of(peer))


def _length(word: str) -> Length:
    """Read a number of tokens, or `max`."""
    if word == "max":
        return "max"
    if not word.isdecimal() or int(word) < _MIN_LENGTH:
        raise argparse.ArgumentTypeError(f"{word!r} is neither {_MIN_LENGTH} or more nor max")
    return int(word)
