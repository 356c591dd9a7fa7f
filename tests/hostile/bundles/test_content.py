"""Files that fit their digests, and are still not what the manifest needs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from embed_export.bundle import describe_files
from embed_runtime import BundleError
from embed_runtime.bundle import read_manifest, write_manifest
from embed_runtime.engines import LoadSpec, dummy

Opener = Callable[[Path], object]
Refuse = Callable[[Opener, Path], str]
Describe = Callable[[Path], None]


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"version": "1.0", "model": {}}'])
def test_a_tokenizer_that_is_none(
    bundle: Path, open_bundle: Opener, content: str, refuse: Refuse, describe_again: Describe
) -> None:
    (bundle / "tokenizer.json").write_text(content)
    describe_again(bundle)
    assert "tokenizer.json" in refuse(open_bundle, bundle)


def test_a_graph_of_another_size(
    bundle: Path, open_bundle: Opener, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
) -> None:
    def load(spec: LoadSpec) -> dummy.DummyEngine:
        return dummy.DummyEngine(dimensions=16, hidden_size=16, normalize=True)

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    words = refuse(open_bundle, bundle)
    assert "16" in words
    assert "32 dimensions" in words


@pytest.fixture
def make_plan(bundle: Path, describe_again: Describe) -> Callable[..., None]:
    """Turns the bundle's engine into a plan of the dummy library, or of the one named."""

    def make_plan(**fields: object) -> None:
        (bundle / "model.plan").write_bytes(b"opaque")
        manifest = msgspec.structs.replace(read_manifest(bundle), files=describe_files(bundle))
        entry = msgspec.structs.replace(
            manifest.engines[0], file="model.plan", files=("model.plan",), **fields
        )
        write_manifest(bundle, msgspec.structs.replace(manifest, engines=(entry,)))
        describe_again(bundle)

    return make_plan


def test_a_plan_of_another_version(
    bundle: Path, open_bundle: Opener, refuse: Refuse, make_plan: Callable[..., None]
) -> None:
    make_plan(producer="dummy 2")
    words = refuse(open_bundle, bundle)
    assert "built by dummy 2, here is dummy 1" in words


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_a_plan_of_a_library_that_is_not_usable_here(
    bundle: Path, open_bundle: Opener, backend: str, refuse: Refuse, make_plan: Callable[..., None]
) -> None:
    make_plan(backend=backend, producer=f"{backend} 0.0.0", device="cuda", targets=("1.0",))
    assert backend in refuse(open_bundle, bundle)


def test_a_plan_of_another_gpu(
    bundle: Path,
    open_bundle: Opener,
    monkeypatch: pytest.MonkeyPatch,
    refuse: Refuse,
    make_plan: Callable[..., None],
) -> None:
    def load(spec: LoadSpec) -> dummy.DummyEngine:
        raise BundleError(f"built for compute capability {spec.entry.targets[0]}, here is 9.0")

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    make_plan(targets=("8.9",))
    assert "built for compute capability 8.9, here is 9.0" in refuse(open_bundle, bundle)
