"""`scaling`: tokens a second and memory of calls with 1, 10, 100 texts and so on."""

import argparse

from benchmarks.bundles import find_bundle
from benchmarks.commands.options import add_export_again, add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.records.scaling import ScalingResult
from benchmarks.scaling import measure_scaling
from benchmarks.workloads import WORKLOADS

HELP = "measure calls of growing size, store as JSON"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--workload", choices=WORKLOADS, default="all-MiniLM-L6-v2")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="bf16")
    parser.add_argument("--max-texts", type=int, default=100_000, metavar="N")
    parser.add_argument("--words", type=int, default=4, metavar="N", help="in each text")
    add_export_again(parser)
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    workload = WORKLOADS[options.workload]()
    bundle = find_bundle(workload, options.precision, export_again=options.export_again)
    described = describe_run()
    engine, steps = measure_scaling(
        bundle,
        num_threads=options.threads,
        max_texts=options.max_texts,
        words_per_text=options.words,
    )
    result = ScalingResult(
        run=described,
        model=workload.name,
        engine=engine,
        precision=options.precision,
        num_threads=options.threads,
        words_per_text=options.words,
        steps=steps,
    )
    store(result, options.output, "scaling", workload.name)
