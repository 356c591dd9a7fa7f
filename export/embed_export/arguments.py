"""Command lines as vLLM users write them: `--a_b` for `--a-b`, `--a.key value` for JSON objects."""

from collections.abc import Collection, Iterator, Sequence
from typing import cast

import msgspec

from embed_export.errors import ExportError


def spell_out(arguments: Sequence[str], *, objects: Collection[str]) -> list[str]:
    """Return the same command line in this command's own spelling.

    Args:
        arguments: What the user wrote.
        objects: Options that take a JSON object, and so may be written key by key.

    Raises:
        ExportError: An object is written both ways, or a key has no value or two.
    """
    spelled: list[str] = []
    trees: dict[str, dict[str, object]] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        option, dot, path = flag.partition(".")
        if not option.startswith("--"):
            spelled.append(argument)
            continue
        option = option.replace("_", "-")
        if dot and option in objects:
            found = value if equals else _next(rest, flag)
            _set(trees.setdefault(option, {}), path.split("."), _parse(found), flag)
        else:
            spelled.append(f"{option}{dot}{path}{equals}{value}")
    for option, tree in trees.items():
        if any(one == option or one.startswith(f"{option}=") for one in spelled):
            raise ExportError(f"{option} is given as JSON and key by key; keep one")
        # With "=": a value is never taken for a flag.
        spelled.append(f"{option}={msgspec.json.encode(tree).decode()}")
    return spelled


def _next(rest: Iterator[str], flag: str) -> str:
    value = next(rest, None)
    if value is None:
        raise ExportError(f"{flag} needs a value")
    return value


def _parse(text: str) -> object:
    """Read a value: JSON where it is that, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text


def _set(tree: dict[str, object], path: Sequence[str], value: object, flag: str) -> None:
    first, *others = path
    if not others:
        if first in tree:
            raise ExportError(f"{flag} is given twice; keep one")
        tree[first] = value
        return
    branch = tree.setdefault(first, {})
    if not isinstance(branch, dict):
        raise ExportError(f"{flag}: {first} has a value already; keep one")
    _set(cast("dict[str, object]", branch), others, value, flag)
