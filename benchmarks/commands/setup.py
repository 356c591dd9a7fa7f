"""`setup`: the environment of another system, made from the requirements kept here."""

import argparse

from benchmarks.environments import ENVIRONMENTS, setup_environment

HELP = "install other systems, each into an environment of its own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", choices=ENVIRONMENTS, nargs="+")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    for name in options.name:
        setup_environment(name)
