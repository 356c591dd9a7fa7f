"""Command line flags out of config dataclasses: an option is written once, as a field."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, fields
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from embed_runtime.errors import InputError

ConfigT = TypeVar("ConfigT")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with code 2."""
        self.exit(2, f"error: {message}; {self.prog} --help lists the options\n")


def add_options(parser: argparse.ArgumentParser, title: str, config_class: type[Any]) -> None:
    """Add a group of flags, one for every field of a config class."""
    group = parser.add_argument_group(title)
    hints = get_type_hints(config_class)
    for option in fields(config_class):
        reading = _reading(hints[option.name])
        if reading.get("type") in (int, float) and "choices" not in reading:
            reading["metavar"] = "N"
        if "metavar" in option.metadata:
            reading["metavar"] = option.metadata["metavar"]
        group.add_argument(
            "--" + option.name.replace("_", "-"),
            *(f"--{alias}" for alias in option.metadata.get("aliases", ())),
            help=_help(option),
            default=argparse.SUPPRESS,
            **reading,
        )


def with_dashes(arguments: Sequence[str]) -> list[str]:
    """Read `--max_body_bytes` as `--max-body-bytes`, as vLLM does; values stay as they are."""
    dashed: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            argument = name.replace("_", "-") + equals + value
        dashed.append(argument)
    return dashed


def from_options(config_class: type[ConfigT], options: Mapping[str, Any]) -> ConfigT:
    """Make a config of the flags that were given; the class has defaults for the others.

    Raises:
        InputError: A value is out of range; or a list is empty, where that would not mean "none"
            but what holds without the flag.
    """
    known: type[Any] = config_class
    given = {
        option.name: _to_tuple(options[option.name], option)
        if isinstance(options[option.name], list)
        else options[option.name]
        for option in fields(known)
        if option.name in options
    }
    return config_class(**given)


def _to_tuple(values: list[str], option: Field[Any]) -> tuple[str, ...]:
    """Take one JSON list of texts, which is how vLLM's users write several, for its items."""
    if len(values) == 1 and values[0].startswith("["):
        with suppress(msgspec.DecodeError):  # then it is a text like any other
            values = msgspec.json.decode(values[0], type=list[str])
    if not values and option.metadata.get("needs_value"):
        flag = "--" + option.name.replace("_", "-")
        raise InputError(f"{flag} [] names none; name at least one, or leave {flag} out")
    return tuple(values)


def _help(option: Field[Any]) -> str:
    text: str = option.metadata["help"]
    default = option.default
    if isinstance(default, str | int) and default is not False and default != "":
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _reading(hint: Any) -> dict[str, Any]:
    """Say in argparse's words how to read a value of this type."""
    origin, kinds = get_origin(hint), get_args(hint)
    if hint is bool:
        return {"action": "store_true"}
    if origin is Literal:
        return {"choices": kinds, "type": type(kinds[0])}
    if origin is tuple:
        return {"nargs": "+", **_reading(kinds[0])}
    if NoneType in kinds:
        return _reading(kinds[0])
    return {"type": hint}
