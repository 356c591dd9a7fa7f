"""A runtime over a dummy bundle, a gate that holds up its engine, and many texts."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embed_runtime import Runtime
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.types import Batch, FloatArray, OutputName

SECONDS = 30
SENTENCE = "the of and time water people number through sentence query vector"
WORDS = SENTENCE.split(" ")


@pytest.fixture
def runtime(dummy_bundle: Callable[..., Path]) -> Iterator[Runtime]:
    with Runtime(dummy_bundle()) as opened:
        yield opened


@pytest.fixture(scope="session")
def many_texts() -> list[str]:
    """Three hundred texts of up to twelve words, no two the same."""
    return [" ".join(WORDS[: i % 11 + 1]) + f" {i}" for i in range(300)]


class Gate:
    """Holds up the engine while it is shut."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.opened.set()

    def shut(self) -> None:
        self.entered.clear()
        self.opened.clear()

    def __call__(self, *_: object) -> None:
        self.entered.set()
        assert self.opened.wait(SECONDS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Give every dummy engine that is opened from now on a gate; it starts open."""
    gate = Gate()
    run = DummyEngine.run

    def gated(self: DummyEngine, batch: Batch) -> dict[OutputName, FloatArray]:
        gate()
        return run(self, batch)

    monkeypatch.setattr(DummyEngine, "run", gated)
    return gate
