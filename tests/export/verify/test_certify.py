"""No engine is certified that does not give the original's vectors, alone and among others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embed_export.bundle import describe_files
from embed_export.errors import ParityError
from embed_export.limits import TOLERANCES, limits_for
from embed_export.probe import Reference
from embed_export.verify import certify
from embed_runtime import BundleError, EngineError
from embed_runtime.bundle import read_manifest, write_manifest
from embed_runtime.engines import LoadSpec, dummy
from embed_runtime.manifest import EngineEntry, Manifest
from embed_runtime.types import Batch, FloatArray, OutputName, Precision

MakeReference = Callable[[Path], Reference]
Outputs = dict[OutputName, FloatArray]
Fault = Callable[[Batch, FloatArray], FloatArray]


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
def certify_as(seal: Callable[[Manifest], Manifest]) -> Callable[..., str]:
    """Certifies a bundle's engine with some of its entry changed; gives the summary."""

    def certify_as(folder: Path, reference: Reference, **fields: object) -> str:
        manifest = read_manifest(folder)
        entry = msgspec.structs.replace(manifest.engines[0], certified=False, **fields)
        manifest = seal(msgspec.structs.replace(manifest, engines=(entry,)))
        write_manifest(folder, manifest)
        return certify(folder, manifest, reference).summary()

    return certify_as


def test_an_engine_that_gives_the_vectors_passes(
    dummy_bundle: Callable[..., Path], original: MakeReference
) -> None:
    folder = dummy_bundle()
    reference = original(folder)
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
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle()
    reference = original(folder)
    break_engine(fault)
    with pytest.raises(ParityError, match=words) as caught:
        certify_as(folder, reference)
    assert "dummy fp32 (graphs/packed.onnx)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.measured != caught.value.allowed


def test_a_coarser_precision_may_be_further_away(
    dummy_bundle: Callable[..., Path],
    break_engine: Callable[[Fault], None],
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle(precision="bf16")
    reference = original(folder)
    break_engine(_noise(0.003))
    # Weights in bf16, arithmetic in float32: as near as bf16 can be, but steady.
    assert "passed" in certify_as(folder, reference, precision="fp32")
    break_engine(_neighbours_leak)
    with pytest.raises(ParityError, match="changes with its batch"):
        certify_as(folder, reference, precision="fp32")


def test_fp16_is_refused_where_activations_outgrow_it(
    dummy_bundle: Callable[..., Path], original: MakeReference, certify_as: Callable[..., str]
) -> None:
    folder = dummy_bundle(precision="fp16")
    reference = replace(original(folder), max_activation=30_000.0)
    with pytest.raises(ParityError, match=r"activations reach 3e\+04, 20000 at most"):
        certify_as(folder, reference, precision="fp16")
    assert "passed" in certify_as(folder, reference, precision="bf16")


def test_values_that_are_not_finite_are_refused(
    dummy_bundle: Callable[..., Path],
    break_engine: Callable[[Fault], None],
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle()
    reference = original(folder)
    break_engine(_nan_in_long_rows)
    with pytest.raises(EngineError, match=r"dummy fp32 \(graphs/packed\.onnx\): .*not finite"):
        certify_as(folder, reference)


def test_vectors_of_another_size_are_refused(
    dummy_bundle: Callable[..., Path],
    break_engine: Callable[[Fault], None],
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle()
    reference = original(folder)
    break_engine(_narrower)
    with pytest.raises(BundleError, match=r"31.* 32 dimensions"):
        certify_as(folder, reference)


def test_a_reference_of_another_size_is_refused(
    dummy_bundle: Callable[..., Path], original: MakeReference, certify_as: Callable[..., str]
) -> None:
    folder = dummy_bundle()
    reference = original(folder)
    with pytest.raises(BundleError, match=r"32 dimensions .* 31"):
        certify_as(folder, replace(reference, vectors=reference.vectors[:, :-1].copy()))


def test_an_engine_that_cannot_run_here_says_why(
    dummy_bundle: Callable[..., Path],
    unavailable: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle()
    reference = original(folder)
    unavailable()
    with pytest.raises(ParityError, match=r"no engine could be proven.*dummy: no such device"):
        certify_as(folder, reference)


def test_a_plan_of_another_gpu_waits_for_it(
    dummy_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle()
    (folder / "model.plan").write_bytes(b"built elsewhere")
    write_manifest(
        folder, msgspec.structs.replace(read_manifest(folder), files=describe_files(folder))
    )
    reference = original(folder)

    def load(spec: LoadSpec) -> dummy.DummyEngine:
        raise BundleError("built for compute capability 8.9, this GPU has 9.0")

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    with pytest.raises(ParityError, match=r"no engine could be proven.*8\.9, this GPU has 9\.0"):
        certify_as(folder, reference, file="model.plan", files=("model.plan",), targets=("8.9",))


def test_a_graph_that_does_not_load_is_not_excused(
    dummy_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    original: MakeReference,
    certify_as: Callable[..., str],
) -> None:
    folder = dummy_bundle()
    reference = original(folder)

    def load(spec: LoadSpec) -> dummy.DummyEngine:
        raise EngineError("no kernel for operator Foo")

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    with pytest.raises(BundleError, match="no kernel for operator Foo"):
        certify_as(folder, reference)


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
