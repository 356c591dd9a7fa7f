"""`docs`: the stored results as one document."""

import argparse
from pathlib import Path

from benchmarks.document import DOCUMENT, write_document
from benchmarks.results import RESULTS

HELP = "write RESULTS.md from the newest stored results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-o", "--output", type=Path, default=DOCUMENT, metavar="FILE")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    options.output.write_text(write_document(RESULTS))
