"""No engine is certified that does not give the original's vectors, alone and among others."""

import errno
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embed_export import measure, verify
from embed_export.bundle import describe_files
from embed_export.errors import ParityError
from embed_export.probe import VECTORS_NAME, Reference, read_reference, write_reference
from embed_export.verify import (
    TOLERANCES,
    certify,
    limits_for,
    record_certificate,
    verify_bundle,
)
from embed_runtime import BundleError, EngineError, Runtime
from embed_runtime.bundle import fingerprint, read_manifest, write_manifest
from embed_runtime.certificate import Figures, read_certificate
from embed_runtime.engines import Availability, LoadSpec, dummy
from embed_runtime.manifest import EngineEntry, Manifest
from embed_runtime.types import Batch, FloatArray, OutputName, Precision

Outputs = dict[OutputName, FloatArray]
Fault = Callable[[Batch, FloatArray], FloatArray]


@pytest.fixture(autouse=True)
def short_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time engines on a few texts only: the figure is there, and nothing here depends on it."""
    monkeypatch.setattr(measure, "_MAX_SPEED_TEXTS", 4)


@pytest.fixture
def break_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Make the dummy engine's vectors wrong."""
    run = dummy.DummyEngine.run

    def install(fault: Fault) -> None:
        def run_broken(self: dummy.DummyEngine, batch: Batch) -> Outputs:
            outputs = run(self, batch)
            return {name: fault(batch, vectors) for name, vectors in outputs.items()}

        monkeypatch.setattr(dummy.DummyEngine, "run", run_broken)

    return install


@pytest.fixture
def unavailable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Take away what the dummy engine needs to run."""

    def install() -> None:
        availability = Availability(reason="no such device", producer="", can_build=True)
        backend = replace(dummy.BACKEND, probe=lambda: availability)
        monkeypatch.setattr(dummy, "BACKEND", backend)

    return install


def _reference(folder: Path) -> Reference:
    """Let the dummy engine be the original model, while it is still whole."""
    texts = ("", "a", "the word", "water was here before the people came", "one " * 62, "two " * 90)
    with Runtime(folder, engine="dummy") as runtime:
        vectors = runtime.embed(texts, prompt="")
    return Reference(texts=texts, vectors=vectors, max_activation=3.0, versions={"original": "1.0"})


def _sealed(entry: EngineEntry, manifest: Manifest) -> EngineEntry:
    sha256 = fingerprint(entry, graphs=manifest.graphs, files=manifest.files)
    return msgspec.structs.replace(entry, fingerprint=sha256)


def _certify(folder: Path, reference: Reference, **fields: object) -> str:
    """Certify the bundle's engine with some of its entry changed; returns the summary."""
    manifest = read_manifest(folder)
    entry = msgspec.structs.replace(manifest.engines[0], certified=False, **fields)
    manifest = msgspec.structs.replace(manifest, engines=(_sealed(entry, manifest),))
    write_manifest(folder, manifest)
    return certify(folder, manifest, reference).summary()


# What certify measures.


def test_an_engine_that_gives_the_vectors_passes(dummy_bundle: Callable[..., Path]) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)
    done: list[EngineEntry] = []
    certificate = certify(folder, read_manifest(folder), reference, on_engine=done.append)
    assert done == list(read_manifest(folder).engines)
    [proof] = certificate.engines
    assert proof.passed
    assert proof.reason == ""
    assert proof.limits == TOLERANCES["fp32"]
    assert proof.machine is not None
    assert proof.machine.cpu
    assert proof.machine.gpu is None
    assert certificate.reference.versions == {"original": "1.0"}
    figures = proof.figures
    assert figures is not None
    assert figures.cosine_min == pytest.approx(1, abs=1e-6)
    assert figures.cosine_mean == pytest.approx(1, abs=1e-6)
    assert (figures.max_abs_difference, figures.sign_flips, figures.num_non_finite) == (0, 0, 0)
    assert (figures.batch_difference_alone, figures.batch_difference_shuffled) == (0, 0)
    assert figures.num_texts == len(reference.texts)
    # [CLS] and [SEP] around 0, 1, 2, 7, 62 and 62 of 90 words.
    assert figures.num_tokens == 2 * 6 + 0 + 1 + 2 + 7 + 62 + 62
    assert figures.tokens_per_second > 0


def _noise(scale: float) -> Fault:
    def fault(_: Batch, vectors: FloatArray) -> FloatArray:
        noise: FloatArray = np.sin(np.arange(32)).astype(np.float32)
        noise *= scale
        return vectors + noise

    return fault


def _opposite(_: Batch, vectors: FloatArray) -> FloatArray:
    return -vectors


def _longer(_: Batch, vectors: FloatArray) -> FloatArray:
    return vectors * np.float32(1.01)


def _narrower(_: Batch, vectors: FloatArray) -> FloatArray:
    return vectors[:, :-1].copy()


def _nan_in_long_rows(batch: Batch, vectors: FloatArray) -> FloatArray:
    vectors = vectors.copy()
    vectors[batch.lengths >= 64, 0] = np.nan
    return vectors


def _neighbours_leak(batch: Batch, vectors: FloatArray) -> FloatArray:
    return vectors + np.float32(1e-4) * (batch.num_rows > 1)


def _order_matters(batch: Batch, vectors: FloatArray) -> FloatArray:
    vectors = vectors.copy()
    vectors[0] += 1e-4 if batch.num_rows > 1 else 0
    return vectors


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_noise(0.01), r"smallest cosine 0\.9\d+, 0\.99999 at least"),
        (_opposite, r"smallest cosine -1, 0\.99999 at least"),
        (
            _longer,
            r"length differs by 0\.01, 0\.0045 at most",
        ),
        (_neighbours_leak, r"changes with its batch by 0\.0001, 1e-05 at most"),
        (_order_matters, r"changes with its batch by 0\.0001, 1e-05 at most"),
    ],
)
def test_an_engine_that_does_not_is_refused(
    dummy_bundle: Callable[..., Path],
    break_engine: Callable[[Fault], None],
    fault: Fault,
    words: str,
) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)
    break_engine(fault)
    with pytest.raises(ParityError, match=words) as caught:
        _certify(folder, reference)
    assert "dummy fp32 (graphs/packed.onnx)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.measured != caught.value.allowed


def test_a_coarser_precision_may_be_further_away(
    dummy_bundle: Callable[..., Path], break_engine: Callable[[Fault], None]
) -> None:
    folder = dummy_bundle(precision="bf16")
    reference = _reference(folder)
    break_engine(_noise(0.003))
    # Weights in bf16, arithmetic in float32: as near as bf16 can be, but steady.
    assert "passed" in _certify(folder, reference, precision="fp32")
    break_engine(_neighbours_leak)
    with pytest.raises(ParityError, match="changes with its batch"):
        _certify(folder, reference, precision="fp32")


def test_fp16_is_refused_where_activations_outgrow_it(dummy_bundle: Callable[..., Path]) -> None:
    folder = dummy_bundle(precision="fp16")
    reference = replace(_reference(folder), max_activation=30_000.0)
    with pytest.raises(ParityError, match=r"activations reach 3e\+04, 20000 at most"):
        _certify(folder, reference, precision="fp16")
    assert "passed" in _certify(folder, reference, precision="bf16")


def test_values_that_are_not_finite_are_refused(
    dummy_bundle: Callable[..., Path], break_engine: Callable[[Fault], None]
) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)
    break_engine(_nan_in_long_rows)
    with pytest.raises(EngineError, match=r"dummy fp32 \(graphs/packed\.onnx\): .*not finite"):
        _certify(folder, reference)


def test_vectors_of_another_size_are_refused(
    dummy_bundle: Callable[..., Path], break_engine: Callable[[Fault], None]
) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)
    break_engine(_narrower)
    with pytest.raises(BundleError, match=r"31.* 32 dimensions"):
        _certify(folder, reference)


def test_a_reference_of_another_size_is_refused(dummy_bundle: Callable[..., Path]) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)
    with pytest.raises(BundleError, match=r"32 dimensions .* 31"):
        _certify(folder, replace(reference, vectors=reference.vectors[:, :-1].copy()))


def test_an_engine_that_cannot_run_here_says_why(
    dummy_bundle: Callable[..., Path],
    unavailable: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)
    unavailable()
    with pytest.raises(ParityError, match=r"no engine could be proven.*dummy: no such device"):
        _certify(folder, reference)


def test_a_plan_of_another_gpu_waits_for_it(
    dummy_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dummy_bundle()
    (folder / "model.plan").write_bytes(b"built elsewhere")
    write_manifest(
        folder, msgspec.structs.replace(read_manifest(folder), files=describe_files(folder))
    )
    reference = _reference(folder)

    def load(spec: LoadSpec) -> dummy.DummyEngine:
        raise BundleError("built for compute capability 8.9, this GPU has 9.0")

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    with pytest.raises(ParityError, match=r"no engine could be proven.*8\.9, this GPU has 9\.0"):
        _certify(folder, reference, file="model.plan", files=("model.plan",), targets=("8.9",))


def test_a_graph_that_does_not_load_is_not_excused(
    dummy_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dummy_bundle()
    reference = _reference(folder)

    def load(spec: LoadSpec) -> dummy.DummyEngine:
        raise EngineError("no kernel for operator Foo")

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    with pytest.raises(BundleError, match="no kernel for operator Foo"):
        _certify(folder, reference)


@pytest.mark.parametrize(
    ("bundle", "engine", "cosine", "batch"),
    [
        ("fp32", "fp32", "fp32", "fp32"),
        ("bf16", "fp32", "bf16", "fp32"),
        ("fp32", "bf16", "bf16", "bf16"),
        ("fp16", "fp16", "fp16", "fp16"),
        ("int8", "fp32", "int8", "fp32"),
        ("int8", "int8", "int8", "int8"),
    ],
)
def test_the_coarser_precision_sets_the_limits(
    bundle: Precision, engine: Precision, cosine: Precision, batch: Precision
) -> None:
    limits = limits_for(bundle, engine)
    assert limits.cosine_min == TOLERANCES[cosine].cosine_min
    assert limits.batch_difference == TOLERANCES[batch].batch_difference
    assert limits.max_activation == TOLERANCES[batch].max_activation


# What follows from it.


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
def bundle(dummy_bundle: Callable[..., Path]) -> Path:
    """A bundle of three engines, as an export leaves it before anything is proven."""
    folder = dummy_bundle()
    write_reference(folder, _reference(folder))
    for name in ("graphs/b.onnx", "graphs/c.onnx"):
        (folder / name).write_text(name)
    manifest = msgspec.structs.replace(read_manifest(folder), files=describe_files(folder))
    engines = [
        msgspec.structs.replace(manifest.engines[0], file=name, files=(name,), certified=False)
        for name in ("graphs/packed.onnx", "graphs/b.onnx", "graphs/c.onnx")
    ]
    engines = [_sealed(entry, manifest) for entry in engines]
    write_manifest(folder, msgspec.structs.replace(manifest, engines=tuple(engines)))
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


# The reference on disk.


def test_the_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    reference = Reference(
        texts=("", "\0 control", "\U0001f389 \u4f60\u597d", "line\nline"),
        vectors=np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
        max_activation=12.5,
        versions={"torch": "2.13.0"},
    )
    write_reference(tmp_path, reference)
    read = read_reference(tmp_path)
    assert (read.texts, read.versions, read.max_activation) == (
        reference.texts,
        reference.versions,
        reference.max_activation,
    )
    assert np.array_equal(read.vectors, reference.vectors)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((1, 0), np.float32),
        np.zeros(1, np.float32),
        np.zeros((1, 3), np.float64),
        np.full((1, 3), np.nan, np.float32),
        np.array([[{}]], dtype=object),
    ],
)
def test_vectors_that_do_not_fit_the_texts_are_refused(
    tmp_path: Path, vectors: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    reference = Reference(texts=("a",), vectors=np.ones((1, 3), np.float32), max_activation=1)
    write_reference(tmp_path, reference)
    np.save(tmp_path / VECTORS_NAME, vectors, allow_pickle=True)
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    reference = Reference(texts=("a",), vectors=np.ones((1, 3), np.float32), max_activation=1)
    write_reference(tmp_path, reference)
    path = tmp_path / VECTORS_NAME
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(1, 3), }" + b" " * 12, b"(1, 900000000000000)}"))
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)
    path.write_bytes(whole[:-4])
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)
