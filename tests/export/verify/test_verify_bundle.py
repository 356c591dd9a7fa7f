"""What a bundle records of the proofs: at its export, and by `embed-export --verify` later."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from embed_export import verify
from embed_export.bundle import describe_files
from embed_export.errors import ParityError
from embed_export.probe import Reference, read_reference, write_reference
from embed_export.verify import certify, record_certificate, verify_bundle
from embed_runtime import BundleError, Runtime
from embed_runtime.bundle import read_manifest, write_manifest
from embed_runtime.certificate import Figures, read_certificate
from embed_runtime.manifest import Manifest


def _figures(tokens_per_second: float) -> Figures:
    return Figures(
        cosine_min=1,
        cosine_mean=1,
        max_abs_difference=0,
        max_norm_error=0,
        sign_flips=0,
        batch_difference_alone=0,
        batch_difference_shuffled=0,
        num_non_finite=0,
        num_texts=1,
        num_tokens=1,
        tokens_per_second=tokens_per_second,
    )


@pytest.fixture
def bundle(
    dummy_bundle: Callable[..., Path],
    original: Callable[[Path], Reference],
    seal: Callable[[Manifest], Manifest],
) -> Path:
    """A bundle of three engines, as an export leaves it before anything is proven."""
    folder = dummy_bundle()
    write_reference(folder, original(folder))
    for name in ("graphs/b.onnx", "graphs/c.onnx"):
        (folder / name).write_text(name)
    manifest = msgspec.structs.replace(read_manifest(folder), files=describe_files(folder))
    engines = [
        msgspec.structs.replace(manifest.engines[0], file=name, files=(name,), certified=False)
        for name in ("graphs/packed.onnx", "graphs/b.onnx", "graphs/c.onnx")
    ]
    write_manifest(folder, seal(msgspec.structs.replace(manifest, engines=tuple(engines))))
    return folder


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Tokens per second of each engine file; an engine that is not here fails its limits."""
    speeds: dict[str, float] = {}

    def measured(runtime: Runtime, reference: Reference) -> Figures:
        file = runtime.engine_entry.file
        if file in speeds:
            return _figures(speeds[file])
        return msgspec.structs.replace(_figures(1), cosine_min=0.5)

    monkeypatch.setattr(verify, "measure", measured)
    return speeds


def _export(folder: Path) -> None:
    manifest = read_manifest(folder)
    record_certificate(folder, manifest, certify(folder, manifest, read_reference(folder)))


def test_the_fastest_engine_stands_first(bundle: Path, speeds: dict[str, float]) -> None:
    speeds.update({"graphs/packed.onnx": 10, "graphs/b.onnx": 30, "graphs/c.onnx": 20})
    _export(bundle)
    manifest, certificate = read_manifest(bundle), read_certificate(bundle)
    order = ["graphs/b.onnx", "graphs/c.onnx", "graphs/packed.onnx"]
    assert [entry.file for entry in manifest.engines] == order
    assert [proof.file for proof in certificate.engines] == order
    assert [entry.tokens_per_second for entry in manifest.engines] == [30, 20, 10]
    assert all(entry.certified for entry in manifest.engines)


def test_one_engine_that_falls_short_stops_all(bundle: Path, speeds: dict[str, float]) -> None:
    speeds.update({"graphs/packed.onnx": 10, "graphs/b.onnx": 30})
    with pytest.raises(ParityError, match=r"graphs/c\.onnx.*0\.5, 0\.99999 at least") as caught:
        _export(bundle)
    assert (caught.value.measured, caught.value.allowed) == (0.5, 0.99999)
    assert str(caught.value).endswith("precision, or only what passed: --engine dummy")
    assert not (bundle / "certificate.json").exists()


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def half_proven(bundle: Path, speeds: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported bundle: b and c ran where it was built, `packed` needs another machine."""
    speeds.update({"graphs/packed.onnx": 50, "graphs/b.onnx": 30, "graphs/c.onnx": 20})
    proven = [entry for entry in read_manifest(bundle).engines if "packed" not in entry.file]
    manifest = read_manifest(bundle)
    certificate = certify(bundle, manifest, read_reference(bundle), engines=proven)
    record_certificate(bundle, manifest, certificate)
    assert [e.certified for e in read_manifest(bundle).engines] == [True, True, False]
    return bundle


def test_verify_certifies_what_runs_only_here(half_proven: Path) -> None:
    certificate = verify_bundle(half_proven)
    assert certificate.engines[0].passed
    entries = read_manifest(half_proven).engines
    assert [entry.certified for entry in entries] == [True, True, True]
    assert entries[0].file == "graphs/packed.onnx"
    assert [proof.file for proof in read_certificate(half_proven).engines] == [
        "graphs/packed.onnx",
        "graphs/b.onnx",
        "graphs/c.onnx",
    ]


def test_verify_of_one_engine_keeps_the_figures_of_the_others(
    half_proven: Path, speeds: dict[str, float]
) -> None:
    speeds.update({"graphs/b.onnx": 1, "graphs/c.onnx": 99})
    verify_bundle(half_proven / "graphs" / "c.onnx")
    entries = read_manifest(half_proven).engines
    assert [(entry.file, entry.tokens_per_second) for entry in entries] == [
        ("graphs/c.onnx", 99),
        ("graphs/b.onnx", 30),
        ("graphs/packed.onnx", None),
    ]


def test_verify_with_no_engine_here_changes_nothing(
    half_proven: Path, unavailable: Callable[[], None]
) -> None:
    before = _snapshot(half_proven)
    unavailable()
    with pytest.raises(ParityError, match="no such device"):
        verify_bundle(half_proven)
    assert _snapshot(half_proven) == before


def test_verify_that_fails_changes_nothing(half_proven: Path, speeds: dict[str, float]) -> None:
    before = _snapshot(half_proven)
    del speeds["graphs/b.onnx"]
    with pytest.raises(ParityError, match=r"graphs/b\.onnx"):
        verify_bundle(half_proven)
    assert _snapshot(half_proven) == before


def test_verify_does_not_write_into_a_bundle_that_was_replaced(
    half_proven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(half_proven)

    def replaced(runtime: Runtime, reference: Reference) -> Figures:
        write_manifest(half_proven, msgspec.structs.replace(manifest, num_layers=3))
        return _figures(1)

    monkeypatch.setattr(verify, "measure", replaced)
    with pytest.raises(BundleError, match="changed while it was verified"):
        verify_bundle(half_proven)
    assert read_manifest(half_proven).num_layers == 3


def test_verify_of_a_read_only_bundle_only_checks(
    half_proven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(verify, "record_certificate", refuse)
    assert verify_bundle(half_proven / "graphs" / "b.onnx").find(
        read_manifest(half_proven).engines[0]
    )
    with pytest.raises(BundleError, match=r"dummy passed but .*Read-only.*writable copy"):
        verify_bundle(half_proven)


def test_verify_of_a_file_that_is_no_engine_lists_those_that_are(half_proven: Path) -> None:
    with pytest.raises(BundleError, match=r"graphs/b\.onnx, graphs/c\.onnx"):
        verify_bundle(half_proven / "tokenizer.json")


def test_verify_through_the_real_engine(bundle: Path) -> None:
    _export(bundle)
    certificate = verify_bundle(bundle)
    assert all(proof.passed for proof in certificate.engines)
    assert certificate.summary().count("\n") == 4


def test_verify_needs_neither_torch_nor_the_exporters_libraries() -> None:
    code = (
        "import sys, embed_export.verify;"
        "print({'torch', 'transformers', 'onnx', 'ml_dtypes'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout == "set()\n", printed.stderr
