"""`python -m benchmarks COMMAND`: most measure and store; `report` and `docs` show it again."""

import argparse
import logging
from collections.abc import Sequence

from benchmarks.commands import docs, export, http, mix, report, run, scaling, serve, setup, startup

_COMMANDS = {
    "run": run,
    "setup": setup,
    "scaling": scaling,
    "export": export,
    "serve": serve,
    "http": http,
    "mix": mix,
    "startup": startup,
    "report": report,
    "docs": docs,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command in _COMMANDS.items():
        command_parser = commands.add_parser(name, help=command.HELP)
        command.add_arguments(command_parser)
        command_parser.set_defaults(action=command.run)
    options = parser.parse_args(arguments)
    options.action(options)


if __name__ == "__main__":
    main()
