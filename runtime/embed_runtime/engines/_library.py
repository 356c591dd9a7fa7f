"""Finding engine libraries, and putting what they say into one line."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

MAX_MESSAGE_CHARS = 400


class MissingLibraryError(Exception):
    """A library cannot be imported; the message says why, and what to install."""


def import_library(names: Sequence[str], extra: str) -> ModuleType:
    """Import the first of several modules that is there.

    Raises:
        MissingLibraryError: None of them can be imported.
    """
    broken = ""
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                broken = broken or f"{name} cannot be imported: {one_line(error)}"
        except Exception as error:  # noqa: BLE001 - a broken install may raise anything
            broken = broken or f"{name} cannot be imported: {one_line(error)}"
    raise MissingLibraryError(f'{broken or f"{names[0]} is not installed"}; pip install "{extra}"')


def one_line(message: object) -> str:
    """Put what a library says into one line of bearable length."""
    line = " ".join(str(message).split())
    return line if len(line) <= MAX_MESSAGE_CHARS else f"{line[:MAX_MESSAGE_CHARS]}..."
