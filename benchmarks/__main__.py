"""`python -m benchmarks COMMAND`: most measure and store; `report` shows a stored result again."""

import argparse
import logging
from collections.abc import Sequence

from benchmarks.commands import export, http, mix, report, run, scaling, serve, setup

_COMMANDS = {
    "run": run,
    "setup": setup,
    "scaling": scaling,
    "export": export,
    "serve": serve,
    "http": http,
    "mix": mix,
    "report": report,
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
