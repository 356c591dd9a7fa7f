"""The number of streams a bundle is served with is the one it was fastest with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from embed_export import streams
from embed_export.probe import Reference
from embed_export.verify import certify, record_certificate
from embed_runtime import Runtime, RuntimeConfig
from embed_runtime.bundle import read_manifest
from embed_runtime.engines import Engine, LoadSpec, dummy


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Make the dummy engine one of many streams, as fast with each number as it says here."""
    rates: dict[int, float] = {}

    def load(spec: LoadSpec) -> Engine:
        engine = DUMMY.load(spec)
        engine.num_streams = spec.num_streams
        return engine

    def choices(_: LoadSpec) -> list[int]:
        return list(rates)

    def time_pass(runtime: Runtime, _: object) -> float:
        return 1 / rates[runtime.num_streams]

    backend = replace(DUMMY, load=load, stream_choices=choices)
    monkeypatch.setattr(dummy, "BACKEND", backend)
    monkeypatch.setattr(streams, "time_pass", time_pass)
    return rates


DUMMY = dummy.BACKEND


@pytest.mark.parametrize(
    ("measured", "fastest"),
    [
        ({1: 100.0, 2: 120.0, 4: 130.0}, 4),
        ({1: 100.0, 2: 120.0, 4: 90.0}, 2),
        ({1: 100.0, 2: 101.0}, 1),
        ({4: 100.0, 2: 101.0, 1: 100.0}, 1),
    ],
)
def test_the_fastest_number_is_recorded_and_served(
    dummy_bundle: Callable[..., Path],
    rates: dict[int, float],
    measured: dict[int, float],
    fastest: int,
) -> None:
    rates.update(measured)
    folder = dummy_bundle()
    manifest = read_manifest(folder)
    with Runtime(folder) as runtime:
        assert runtime.num_streams == 1
        texts = ("a", "the word")
        reference = Reference(
            texts=texts, vectors=runtime.embed(texts, prompt=""), max_activation=1.0, versions={}
        )
    certificate = certify(folder, manifest, reference)
    assert [one.figures and one.figures.num_streams for one in certificate.engines] == [fastest]
    record_certificate(folder, manifest, certificate)
    with Runtime(folder) as runtime:
        assert runtime.num_streams == fastest
    with Runtime(folder, config=RuntimeConfig(num_streams=3)) as runtime:
        assert runtime.num_streams == 3


def test_a_single_choice_takes_no_time(
    dummy_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(streams, "time_pass", measure)
    assert streams.choose_streams((1,), lambda _: Runtime(dummy_bundle()), ("a",)) == 1
