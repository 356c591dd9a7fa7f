"""`report`: a stored result once more."""

import argparse
from pathlib import Path

from benchmarks.commands.storing import show
from benchmarks.results import read_result

HELP = "print the tables of a stored result and plot it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("result", type=Path)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    show(options.result, read_result(options.result))
