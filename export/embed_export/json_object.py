"""A checkpoint's JSON files: objects whose look-ups name the file and the key when they fail."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, overload

from embed_export.errors import ExportError, UnsupportedModelError

T = TypeVar("T", bool, int, float, str)
W = TypeVar("W")

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


class JsonObject(Mapping[str, object]):
    """A JSON object that remembers where it came from.

    An explicit null means the same as an absent key, in every look-up but `[]`.

    Attributes:
        source: How error messages name it, like "1_Pooling/config.json".
    """

    def __init__(self, values: Mapping[str, object], *, source: str) -> None:
        self._values = dict(values)
        self.source = source

    def __getitem__(self, key: str) -> object:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"JsonObject({self._values!r}, source={self.source!r})"

    @overload
    def find(self, key: str, kind: type[T]) -> T | None: ...

    @overload
    def find(self, key: str, kind: type[T], default: T) -> T: ...

    def find(self, key: str, kind: type[T], default: T | None = None) -> T | None:
        """Look a value up; `default` where it is absent or null.

        An integer is also a number; true is not an integer, and "3" is neither.

        Raises:
            ExportError: It is there with another type.
        """
        value = self._values.get(key)
        if value is None:
            return default
        if kind is float and type(value) is int:
            return kind(value)
        if type(value) is not kind:
            raise self.wrong(key, _WORDS[kind])
        return value

    def require(self, key: str, kind: type[T]) -> T:
        """Look up a value that must be there.

        Raises:
            ExportError: It is absent, null, or of another type.
        """
        value = self.find(key, kind)
        if value is None:
            raise ExportError(f"{self.source}: {key!r} is missing; it must be {_WORDS[kind]}")
        return value

    def find_list(self, key: str, kind: type[T]) -> tuple[T, ...] | None:
        """Look up a list of one type; None where it is absent or null.

        Raises:
            ExportError: It is no list, or holds something else.
        """
        values = self._values.get(key)
        if values is None:
            return None
        if not _is_list(values) or any(type(value) is not kind for value in values):
            raise self.wrong(key, f"a list, each item {_WORDS[kind]}")
        return tuple(values)

    def find_word(self, key: str, words: Mapping[str, W]) -> W | None:
        """Look up one of a few words and give what it stands for; None where absent or null.

        Raises:
            ExportError: It is no string, or another word.
        """
        word = self.find(key, str)
        if word is None:
            return None
        if word not in words:
            raise self.wrong(key, f"one of {', '.join(words)}")
        return words[word]

    def find_object(self, key: str) -> "JsonObject | None":
        """Look up a nested object; None where it is absent or null.

        Raises:
            ExportError: It is something else.
        """
        value = self._values.get(key)
        if value is None:
            return None
        if not _is_object(value):
            raise self.wrong(key, "an object")
        return JsonObject(value, source=f"{self.source}: {key}")

    def find_objects(self, key: str) -> "tuple[JsonObject, ...] | None":
        """Look up a list of objects; None where it is absent or null.

        Raises:
            ExportError: It is no list, or holds something else.
        """
        values = self._values.get(key)
        if values is None:
            return None
        if not _is_list(values) or not all(_is_object(value) for value in values):
            raise self.wrong(key, "a list of objects")
        return tuple(JsonObject(value, source=self.source) for value in values)

    def wrong(self, key: str, allowed: str) -> ExportError:
        """Make the error for a value that cannot be right."""
        return ExportError(f"{self._describe(key)}; it must be {allowed}")

    def unsupported(self, key: str, supported: str) -> UnsupportedModelError:
        """Make the error for a value that may be right, but that we do not compute."""
        return UnsupportedModelError(f"{self._describe(key)}; supported is {supported}")

    def _describe(self, key: str) -> str:
        given = json.dumps(self._values.get(key), default=repr)
        return f"{self.source}: {key!r} is {_shorten(given)}"


def read_json(path: Path, *, source: str) -> object:
    """Read one JSON file.

    Raises:
        ExportError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExportError(
            f"{source} is not JSON ({_shorten(str(error))}); the file is damaged, fetch it again"
        ) from error
    except OSError as error:
        raise ExportError(f"{source} cannot be read: {error.strerror or error}") from error


def read_object(path: Path, *, source: str) -> JsonObject:
    """Read one JSON file that must hold an object.

    Raises:
        ExportError: It cannot be read, is not JSON, or holds something else.
    """
    value = read_json(path, source=source)
    if not _is_object(value):
        raise ExportError(f"{source} must hold a JSON object, not {_shorten(json.dumps(value))}")
    return JsonObject(value, source=source)


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
