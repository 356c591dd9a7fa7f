"""An engine that fails its proof is left out where nobody named it, and stops the export if not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from embed_export import export
from embed_export.build import build_engine
from embed_export.cli import main
from embed_export.verify import verify_bundle
from embed_runtime import BundleError, EngineError
from embed_runtime.bundle import read_manifest
from embed_runtime.engines import (
    Availability,
    BuildSpec,
    BuiltEngine,
    Engine,
    LoadSpec,
    onnxruntime,
    openvino,
)
from embed_runtime.engines._onnxruntime import OnnxRuntimeEngine
from embed_runtime.manifest import Manifest
from embed_runtime.types import Batch, FloatArray, OutputName

Outputs: TypeAlias = dict[OutputName, FloatArray]
Run: TypeAlias = Callable[[Any, Batch], Outputs]
Export: TypeAlias = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("bert", pooling=["mean"], normalize=True)


@pytest.fixture(scope="module")
def of_one_engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the engine that is whole, as one gets it by its name."""
    output = tmp_path_factory.mktemp("named") / "bundle"
    assert main([str(checkpoint), "-o", str(output), "--engine", "onnxruntime"]) == 0
    return output


@pytest.fixture
def run_export(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Exports to `bundle` in the test's folder, on a machine with two engines; gives the code."""
    monkeypatch.setattr(export, "backend_names", lambda: ["onnxruntime", "openvino"])

    def run_export(engines: Sequence[str] = ()) -> int:
        flags = [word for name in engines for word in ("--engine", name)]
        return main([str(checkpoint), "-o", str(tmp_path / "bundle"), *flags])

    return run_export


def _opposite(run: Run) -> Run:
    def run_opposite(self: Any, batch: Batch) -> Outputs:
        return {name: -vectors for name, vectors in run(self, batch).items()}

    return run_opposite


def _failing(run: Run) -> Run:
    """Answers its first text, with which it is tried out, and fails on any company."""

    def run_alone(self: Any, batch: Batch) -> Outputs:
        if batch.num_rows > 1:
            raise EngineError("out of registers")
        return run(self, batch)

    return run_alone


@pytest.fixture
def openvino_is_opposite(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = openvino.OpenVinoEngine
    monkeypatch.setattr(engine, "run", _opposite(engine.run))


@pytest.fixture
def openvino_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = openvino.OpenVinoEngine
    monkeypatch.setattr(engine, "run", _failing(engine.run))


@pytest.fixture
def openvino_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(spec: LoadSpec) -> Engine:
        raise BundleError("no kernel for operator Foo")

    monkeypatch.setattr(openvino, "BACKEND", replace(openvino.BACKEND, load=load))


@pytest.fixture
def openvino_has_a_plan(openvino_is_opposite: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the engine a file of its own, as TensorRT's have, beside the graph it shares."""
    whole = openvino.BACKEND
    graph = "graphs/packed.onnx"

    def build_plan(backend: str, spec: BuildSpec) -> BuiltEngine:
        built = build_engine(backend, spec)
        if backend != "openvino":
            return built
        (spec.folder / "model.plan").write_bytes(b"compiled")
        return replace(built, file="model.plan", files=("model.plan", graph))

    def load_graph(spec: LoadSpec) -> Engine:
        return whole.load(replace(spec, entry=msgspec.structs.replace(spec.entry, file=graph)))

    monkeypatch.setattr(export, "build_engine", build_plan)
    monkeypatch.setattr(openvino, "BACKEND", replace(whole, load=load_graph))


def _without_speed(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    engines = [msgspec.structs.replace(one, tokens_per_second=None) for one in manifest.engines]
    return msgspec.structs.replace(manifest, engines=tuple(engines))


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("openvino_is_opposite", "smallest cosine -1, 0.99999 at least"),
        ("openvino_fails", "out of registers"),
        ("openvino_does_not_load", "no kernel for operator Foo"),
        ("openvino_has_a_plan", "smallest cosine -1, 0.99999 at least"),
    ],
)
def test_an_engine_nobody_named_leaves_the_bundle_of_the_others(
    run_export: Export,
    of_one_engine: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    words: str,
) -> None:
    request.getfixturevalue(fault)
    assert run_export() == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("left out ")]
    assert line.startswith("left out openvino: it failed its proof: ")
    assert words in line
    bundle = tmp_path / "bundle"
    assert _without_speed(bundle) == _without_speed(of_one_engine)
    assert _files(bundle) == _files(of_one_engine)
    # Every file is the one the manifest describes, and every engine has its figures.
    assert [proof.backend for proof in verify_bundle(bundle).engines] == ["onnxruntime"]


def test_an_engine_that_was_named_stops_the_export(
    run_export: Export,
    openvino_is_opposite: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_export(["onnxruntime", "openvino"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: not the original model's vectors: openvino fp32 (graphs/packed.onnx):"
        " smallest cosine -1, 0.99999 at least"
    )
    assert line.endswith("use a finer precision, or only what passed: --engine onnxruntime")
    assert not [*tmp_path.iterdir()]


def test_engines_that_all_fail_stop_the_export(
    run_export: Export,
    openvino_is_opposite: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OnnxRuntimeEngine, "run", _opposite(OnnxRuntimeEngine.run))
    assert run_export() == 2
    said = capsys.readouterr()
    [line] = said.err.splitlines()
    assert "onnxruntime fp32 (graphs/packed.onnx): smallest cosine -1" in line
    assert "openvino fp32 (graphs/packed.onnx): smallest cosine -1" in line
    assert line.endswith("use a finer precision")
    assert "left out" not in said.out
    assert not [*tmp_path.iterdir()]


def test_an_engine_that_waits_for_its_machine_has_not_passed(
    run_export: Export,
    openvino_is_opposite: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    availability = Availability(reason="no such device", producer="", can_build=True)
    backend = replace(onnxruntime.BACKEND, probe=lambda: availability)
    monkeypatch.setattr(onnxruntime, "BACKEND", backend)
    assert run_export() == 2
    assert "openvino fp32 (graphs/packed.onnx): smallest cosine" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
