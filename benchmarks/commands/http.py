"""`http`: servers side by side, one text in a request."""

import argparse
from pathlib import Path

from benchmarks.alone import AloneSpec
from benchmarks.bodies import write_bodies
from benchmarks.bundles import choose_engine, find_bundle
from benchmarks.commands.options import add_export_again, add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.figures import describe_texts
from benchmarks.http import Contender, measure_http
from benchmarks.peer_servers import peer_servers
from benchmarks.records.http import HttpResult
from benchmarks.servers import our_server
from benchmarks.texts import query_texts, token_counter
from benchmarks.workloads import WORKLOADS

HELP = "compare servers, one text in a request, store as JSON; needs wrk"

_NUM_TEXTS = 500
# Docstrings between these lengths have 33 tokens on average.
_TEXT_TOKENS = range(22, 47)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--workload", choices=WORKLOADS, default="all-MiniLM-L6-v2")
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    parser.add_argument("--without-peers", action="store_true", help="this project alone")
    parser.add_argument("--seconds", type=int, default=5, metavar="N", help="of each load")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    add_export_again(parser)
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    workload, cores = WORKLOADS[options.workload](), range(options.threads)
    bundles = [
        find_bundle(workload, precision, export_again=options.export_again)
        for precision in options.precision or ("fp32", "bf16")
    ]
    num_tokens = token_counter(workload.checkpoint)
    texts = query_texts(num_tokens, _TEXT_TOKENS, _NUM_TEXTS)
    contenders = [_ours(bundle, texts, num_threads=options.threads) for bundle in bundles]
    if not options.without_peers:
        peers = peer_servers(workload.checkpoint, cores=cores)
        contenders += [Contender(server=spec) for spec in peers]
    result = HttpResult(
        run=describe_run(),
        model=workload.name,
        num_threads=options.threads,
        texts=describe_texts([num_tokens(text) for text in texts]),
        systems=measure_http(
            contenders,
            write_bodies("http", texts),
            cores=cores,
            seconds=options.seconds,
            num_rounds=options.rounds,
        ),
    )
    store(result, options.output, "http", workload.name)


def _ours(bundle: Path, texts: tuple[str, ...], *, num_threads: int) -> Contender:
    engine = choose_engine(bundle)
    return Contender(
        server=our_server(bundle, engine, num_threads=num_threads),
        alone=AloneSpec(
            bundle=bundle, backend=engine.backend, texts=texts, num_threads=num_threads
        ),
    )
