"""`serve`: a server that has no model under load; all that a server costs beside it."""

import argparse

from benchmarks.commands.options import add_output
from benchmarks.commands.storing import describe_run, store
from benchmarks.dummy_bundle import write_dummy_bundle
from benchmarks.records.serving import ServingResult
from benchmarks.serving import KINDS, Load, measure_serving

_CONNECTIONS = (1, 32, 256)

HELP = "load a server that has no model, store as JSON"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--seconds", type=int, default=10, metavar="N", help="of each load")
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    loads = [
        Load(kind=kind, connections=connections, seconds=options.seconds)
        for kind in KINDS
        for connections in _CONNECTIONS
    ]
    result = ServingResult(
        run=describe_run(),
        seconds=options.seconds,
        measurements=tuple(measure_serving(write_dummy_bundle(), loads, num_cores=1)),
    )
    store(result, options.output, "serving")
