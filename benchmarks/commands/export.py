"""`export`: memory and seconds of each step of an export."""

import argparse
from collections.abc import Sequence

from benchmarks.commands.options import add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.exporting import measure_export
from benchmarks.records.export import ExportResult
from benchmarks.workloads import WORKLOADS
from embed_runtime.types import Precision

HELP = "measure the steps of an export, store as JSON"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--workload", choices=WORKLOADS, default="qwen3-0.6b-size")
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    parser.add_argument("--engine", action="append", metavar="NAME", help="default: onnxruntime")
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    workload = WORKLOADS[options.workload]()
    precisions: Sequence[Precision] = options.precision or ("fp32", "bf16")
    result = ExportResult(
        run=describe_run(),
        num_threads=options.threads,
        runs=tuple(
            measure_export(
                workload,
                precision=precision,
                engines=tuple(options.engine or ["onnxruntime"]),
                num_threads=options.threads,
            )
            for precision in precisions
        ),
    )
    store(result, options.output, "export", workload.name)
