"""Engines that are quick to time or not here at all, and the vectors they must give."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from embed_export.probe import Reference
from embed_runtime import Runtime
from embed_runtime.engines import Availability, dummy

TEXTS = ("", "a", "the word", "water was here before the people came", "one " * 62, "two " * 90)


@pytest.fixture(scope="module", autouse=True)
def timing(short_timing: None) -> None:
    """Time engines on a few texts only, in every test here."""


@pytest.fixture
def unavailable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Take away what the dummy engine needs to run."""

    def install() -> None:
        availability = Availability(reason="no such device", producer="", can_build=True)
        backend = replace(dummy.BACKEND, probe=lambda: availability)
        monkeypatch.setattr(dummy, "BACKEND", backend)

    return install


@pytest.fixture
def original() -> Callable[[Path], Reference]:
    """Lets the dummy engine be the original model, while it is still whole."""

    def original(folder: Path) -> Reference:
        with Runtime(folder, engine="dummy") as runtime:
            vectors = runtime.embed(TEXTS, prompt="")
        return Reference(
            texts=TEXTS, vectors=vectors, max_activation=3.0, versions={"original": "1.0"}
        )

    return original
