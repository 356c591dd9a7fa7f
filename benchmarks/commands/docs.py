"""`docs`: the stored results as pictures and as one document."""

import argparse
from pathlib import Path

from benchmarks.document import DOCUMENT, newest_results, write_document
from benchmarks.reports import save_plot
from benchmarks.results import RESULTS, read_result

HELP = "draw the newest stored results and write RESULTS.md from them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-o", "--output", type=Path, default=DOCUMENT, metavar="FILE")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    for path in newest_results(RESULTS):
        save_plot(read_result(path), path.with_suffix(".png"))
    options.output.write_text(write_document(RESULTS))
