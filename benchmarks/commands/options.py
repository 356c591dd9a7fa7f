"""Options that several commands have."""

import argparse
from pathlib import Path

from benchmarks.machine import num_physical_cores
from benchmarks.results import RESULTS


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Let the caller choose the threads of every system; default: one per physical core."""
    parser.add_argument("--threads", type=int, default=num_physical_cores(), metavar="N")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Let the caller choose the folder of results."""
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR")


def add_export_again(parser: argparse.ArgumentParser) -> None:
    """Let the caller replace the bundles that earlier commands exported."""
    parser.add_argument("--export-again", action="store_true", help="else a bundle is kept")
