"""`engines/README.md` is the format: it names every key and every word that the code knows."""

import typing
from pathlib import Path

import msgspec
import pytest

from embed_runtime import certificate, manifest, types

README = (Path(__file__).parents[2] / "engines" / "README.md").read_text(encoding="utf-8")


def _records() -> list[type[msgspec.Struct]]:
    return [
        value
        for module in (manifest, certificate)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, manifest.Record)
        and value is not manifest.Record
    ]


@pytest.mark.parametrize("record", _records(), ids=lambda record: record.__name__)
def test_names_every_key(record: type[msgspec.Struct]) -> None:
    missing = [name for name in record.__struct_fields__ if f"`{name}`" not in README]
    assert missing == []


@pytest.mark.parametrize(
    "words",
    [
        manifest.PoolingMode,
        manifest.Similarity,
        manifest.Activation,
        manifest.Dialect,
        manifest.Device,
        types.Precision,
        types.OutputName,
    ],
)
def test_names_every_word(words: object) -> None:
    missing = [word for word in typing.get_args(words) if f"`{word}`" not in README]
    assert missing == []
