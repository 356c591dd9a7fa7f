"""`mix`: queries beside documents in bulk, on one server."""

import argparse

from benchmarks.bundles import choose_engine, find_bundle
from benchmarks.commands.options import add_export_again, add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.mix import DOCUMENTS_PER_REQUEST, PAUSE_MILLISECONDS, measure_mix, write_mix
from benchmarks.records.mix import MixResult
from benchmarks.servers import our_server, start_server
from benchmarks.workloads import WORKLOADS

HELP = "send queries beside documents in bulk to one server, store as JSON; needs wrk"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--workload", choices=WORKLOADS, default="all-MiniLM-L6-v2-512")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--engine", metavar="NAME", help="default: the bundle's first")
    parser.add_argument("--document-tokens", type=int, default=512, metavar="N")
    parser.add_argument("--seconds", type=int, default=12, metavar="N", help="of each load")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    add_export_again(parser)
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    workload = WORKLOADS[options.workload]()
    bundle = find_bundle(workload, options.precision, export_again=options.export_again)
    engine = choose_engine(bundle, options.engine)
    spec = our_server(bundle, engine, num_threads=options.threads)
    bodies = write_mix(bundle, document_tokens=options.document_tokens)
    cores = range(options.threads)
    with start_server(spec, cores=cores) as server:
        rounds = measure_mix(
            server, bodies, cores=cores, seconds=options.seconds, num_rounds=options.rounds
        )
        memory_bytes = server.memory_bytes()
    result = MixResult(
        run=describe_run(),
        model=workload.name,
        engine=spec.engine,
        precision=spec.precision,
        num_threads=options.threads,
        tokens_per_query=bodies.tokens_per_query,
        tokens_per_document=bodies.tokens_per_document,
        documents_per_request=DOCUMENTS_PER_REQUEST,
        pause_milliseconds=PAUSE_MILLISECONDS,
        rounds=rounds,
        memory_bytes=memory_bytes,
    )
    store(result, options.output, "mix", workload.name)
