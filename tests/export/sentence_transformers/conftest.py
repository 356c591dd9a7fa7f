"""JSON files of Sentence-Transformers to write and change."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="session")
def write() -> Callable[[Path, object], None]:
    """Writes a JSON file, with the folders it needs."""
    return _write


@pytest.fixture(scope="session")
def edit() -> Callable[..., None]:
    """Changes keys of a JSON object; ... removes one."""

    def edit(path: Path, **changes: object) -> None:
        content: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) | changes
        _write(path, {key: value for key, value in content.items() if value is not ...})

    return edit


@pytest.fixture(scope="session")
def write_modules() -> Callable[..., None]:
    """Writes modules.json: `write_modules(folder, (type, path), ...)`."""

    def write_modules(folder: Path, *modules: tuple[str, str]) -> None:
        entries = [
            {"idx": index, "name": str(index), "path": path, "type": kind}
            for index, (kind, path) in enumerate(modules)
        ]
        _write(folder / "modules.json", entries)

    return write_modules
