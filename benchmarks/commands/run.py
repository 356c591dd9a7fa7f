"""`run`: this project against others, offline."""

import argparse
from collections.abc import Sequence

from benchmarks.bundles import export_bundle
from benchmarks.commands.options import add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.compare import compare
from benchmarks.peers import PeerSpec, RuntimePeer, SentenceTransformersPeer
from benchmarks.records.comparison import ComparisonResult
from benchmarks.workloads import WORKLOADS, Workload
from embed_runtime.types import Precision

# What takes minutes, not an hour.
_DEFAULT_WORKLOADS = ("all-MiniLM-L6-v2", "bge-base-size")

HELP = "measure, store as JSON, print and plot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--toy", action="store_true", help="a tiny model in fp32: checks, not figures"
    )
    parser.add_argument(
        "--workload", choices=WORKLOADS, action="append", help="default: those that take minutes"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed passes of each")
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    names = ["toy"] if options.toy else options.workload or _DEFAULT_WORKLOADS
    precisions: tuple[Precision, ...] = ("fp32",) if options.toy else ("fp32", "bf16")
    result = ComparisonResult(
        run=describe_run(),
        num_threads=options.threads,
        num_rounds=options.rounds,
        workloads=tuple(
            compare(
                workload := WORKLOADS[name](),
                _peers(workload, precisions, num_threads=options.threads),
                num_rounds=options.rounds,
            )
            for name in names
        ),
    )
    store(result, options.output)


def _peers(
    workload: Workload, precisions: Sequence[Precision], *, num_threads: int
) -> list[PeerSpec]:
    """List who is compared, the baseline first; this project's bundles are exported for it."""
    baseline = PeerSpec(
        name="sentence-transformers",
        precision="fp32",
        open_peer=SentenceTransformersPeer,
        path=workload.checkpoint,
        texts=workload.texts,
        num_threads=num_threads,
    )
    ours = [
        PeerSpec(
            name="embed-runtime",
            precision=precision,
            open_peer=RuntimePeer,
            path=export_bundle(workload, precision),
            texts=workload.texts,
            num_threads=num_threads,
        )
        for precision in precisions
    ]
    return [baseline, *ours]
