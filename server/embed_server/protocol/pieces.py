"""JSON in one go or in pieces, so that other threads run while a large answer is written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import orjson

from embed_server.protocol.parsing import is_list

# Numbers that are written in one go: a few milliseconds, in which no other thread runs.
MAX_VALUES_AT_ONCE = 2**16
# A text is written about as fast as its eighth part in numbers; that is generous to numbers.
_CHARS_PER_VALUE = 8


def dumps(value: object) -> bytes:
    """Write JSON; values go from numpy to text without Python floats."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def iter_json(value: object) -> Iterator[bytes]:
    """Write what `dumps` writes, in pieces of at most `MAX_VALUES_AT_ONCE` where it can be cut."""
    if _weigh(value) <= MAX_VALUES_AT_ONCE:
        yield dumps(value)
    elif _is_object(value):
        yield from _iter_object(value)
    elif is_list(value) or _is_array(value):
        yield from _iter_array(value)
    else:
        yield dumps(value)


def _iter_object(fields: Mapping[str, object]) -> Iterator[bytes]:
    lead = b"{"
    for name, value in fields.items():
        yield lead + dumps(name) + b":"
        yield from iter_json(value)
        lead = b","
    yield b"}"


def _iter_array(items: Sequence[Any] | np.ndarray[Any, Any]) -> Iterator[bytes]:
    lead = b"["
    for start, stop in _spans(items):
        if stop - start == 1:
            yield lead
            yield from iter_json(items[start])
        else:
            yield lead + dumps(items[start:stop])[1:-1]
        lead = b","
    yield b"]"


def _spans(items: Sequence[Any] | np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
    """Cut items into neighbours that can be written in one go; what is too large stands alone."""
    start, weight = 0, 0
    for index, item in enumerate(items):
        own = _weigh(item)
        if index > start and weight + own > MAX_VALUES_AT_ONCE:
            yield start, index
            start, weight = index, 0
        weight += own
    yield start, len(items)


def _weigh(value: object) -> int:
    """Say about how many numbers would take as long to write."""
    if _is_array(value):
        return value.size
    if isinstance(value, str):
        return 1 + len(value) // _CHARS_PER_VALUE
    if _is_object(value):
        return 1 + sum(map(_weigh, value.values()))
    if is_list(value):
        return 1 + sum(map(_weigh, value))
    return 1


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[np.ndarray[Any, Any]]:
    return isinstance(value, np.ndarray)
