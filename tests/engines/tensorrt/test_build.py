"""Building plans: TensorRT-RTX really builds here, without a GPU.

Always in a child process, as exports do.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import TensorProto, helper

from embed_export.build import build_engine
from embed_export.errors import ExportError
from embed_runtime.engines import BuildSpec, BuiltEngine, LoadSpec, get_backend
from embed_runtime.engines._cuda import CudaError
from embed_runtime.engines._tensorrt_build import build, configure, count_fused_attention
from embed_runtime.engines._tensorrt_library import Edition
from embed_runtime.engines._tensorrt_profiles import plan_profiles
from embed_runtime.errors import BundleError
from embed_runtime.manifest import Manifest
from embed_runtime.types import Precision

MakeBundle = Callable[..., tuple[Path, Manifest]]
TARGETS = ("8.0", "8.6", "8.9", "12.0", "12.1")


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")


@pytest.fixture
def build_plan(rtx: Any, make_bundle: MakeBundle, tmp_path: Path) -> Callable[..., BuiltEngine]:
    """Build in `tmp_path`."""

    def build_it(precision: Precision = "fp16", **changes: Any) -> BuiltEngine:
        folder, manifest = make_bundle(precision, **changes)
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        backend = get_backend("tensorrt_rtx")
        dialect = backend.dialect(precision)
        return build_engine(
            "tensorrt_rtx",
            BuildSpec(
                folder=tmp_path,
                graph=f"graphs/{dialect}.onnx",
                dialect=dialect,
                precision=precision,
                max_tokens=manifest.max_tokens,
                num_layers=manifest.num_layers,
            ),
        )

    return build_it


@pytest.mark.parametrize("recipe", ["roberta", "mpnet"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_attention_layer_becomes_one_kernel(
    precision: Precision,
    recipe: str,
    build_plan: Callable[..., BuiltEngine],
    rtx: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    built = build_plan(precision, recipe=recipe)
    assert built == BuiltEngine(
        file="model.plan",
        files=("model.plan",),
        producer=f"tensorrt_rtx {rtx.__version__}",
        device="cuda",
        targets=TARGETS,
        max_batch_tokens=16384,
        num_fused_attention=2,
    )
    assert (tmp_path / "model.plan").read_bytes().startswith(b"vtrt")
    assert capfd.readouterr() == ("", "")


def test_float32_builds_though_nothing_fuses(build_plan: Callable[..., BuiltEngine]) -> None:
    assert build_plan("fp32").num_fused_attention == 0


def test_a_second_plan_gets_a_name_of_its_own(
    build_plan: Callable[..., BuiltEngine], tmp_path: Path
) -> None:
    (tmp_path / "model.plan").write_bytes(b"the other edition's")
    assert build_plan(include_prompt=False).file == "model-tensorrt_rtx.plan"
    assert (tmp_path / "model.plan").read_bytes() == b"the other edition's"


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (None, r"tensorrt_rtx [\d.]+ cannot read packed-fp16\.onnx: .*cannot be found"),
        (b"not a graph", r"tensorrt_rtx [\d.]+ cannot read packed-fp16\.onnx: "),
    ],
)
def test_a_graph_it_cannot_read_is_refused_in_one_line(
    graph: bytes | None,
    words: str,
    build_plan: Callable[..., BuiltEngine],
    make_bundle: MakeBundle,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(make_bundle("fp16")[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "graphs/packed-fp16.onnx"
    path.unlink()
    if graph is not None:
        path.write_bytes(graph)
    with pytest.raises(ExportError, match=words) as caught:
        build_engine("tensorrt_rtx", _spec(tmp_path, "graphs/packed-fp16.onnx"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.plan").exists()
    assert capfd.readouterr() == ("", "")


def test_a_graph_it_cannot_build_is_refused_with_the_reason_in_its_log(
    rtx: Any, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input_ids"], ["embedding"], to=TensorProto.FLOAT)],
        "fixed",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [5])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [5])],
    )
    opsets = [helper.make_opsetid("", 20)]
    (tmp_path / "fixed.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    with pytest.raises(
        ExportError, match=r"tensorrt_rtx [\d.]+ refused fixed\.onnx: .* static dimensions"
    ) as caught:
        build_engine("tensorrt_rtx", _spec(tmp_path, "fixed.onnx"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.plan").exists()


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="needs a machine without a GPU")
def test_a_plan_is_refused_where_there_is_no_gpu(
    build_plan: Callable[..., BuiltEngine], make_spec: Callable[..., LoadSpec], tmp_path: Path
) -> None:
    built = build_plan()
    fields: dict[str, Any] = {
        "backend": "tensorrt_rtx",
        "file": built.file,
        "dialect": "packed-fp16",
        "device": "cuda",
        "producer": built.producer,
        "targets": built.targets,
    }
    backend = get_backend("tensorrt_rtx")
    with pytest.raises(BundleError, match=r"model\.plan needs an NVIDIA GPU: "):
        backend.load(make_spec("dummy", folder=tmp_path, entry=fields))
    other = fields | {"producer": "tensorrt_rtx 1.2.3"}
    with pytest.raises(
        BundleError, match=r"was built by tensorrt_rtx 1\.2\.3, here is tensorrt_rtx"
    ):
        backend.load(make_spec("dummy", folder=tmp_path, entry=other))
    os.truncate(tmp_path / built.file, 0)
    with pytest.raises(BundleError, match="is not a plan of tensorrt_rtx"):
        backend.load(make_spec("dummy", folder=tmp_path, entry=fields))


def test_the_full_edition_builds_nothing_without_a_gpu(
    edition: Edition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise CudaError("no NVIDIA driver")

    monkeypatch.setattr("embed_runtime.engines._cuda.compute_capability", fail)
    with pytest.raises(BundleError, match=r"^tensorrt cannot build here: no NVIDIA driver$"):
        build(edition, _spec(tmp_path, "graphs/packed.onnx"))


def test_float32_is_not_cut_to_tf32_and_inputs_get_every_profile() -> None:
    """On a fake builder: a plan tells nothing of this where there is no GPU."""
    cleared: list[str] = []
    added: list[object] = []
    profiles: list[dict[str, Any]] = []

    def create_profile() -> SimpleNamespace:
        shapes_of: dict[str, Any] = {}
        profiles.append(shapes_of)

        def set_shape(name: str, *shapes: tuple[int, ...]) -> None:
            shapes_of[name] = shapes

        return SimpleNamespace(set_shape=set_shape)

    config = SimpleNamespace(clear_flag=cleared.append, add_optimization_profile=added.append)
    builder = SimpleNamespace(
        create_builder_config=lambda: config, create_optimization_profile=create_profile
    )
    inputs = [
        SimpleNamespace(name="input_ids", shape=(-1,)),
        SimpleNamespace(name="pad_index", shape=(-1, -1)),
    ]
    network = SimpleNamespace(num_inputs=2, get_input=inputs.__getitem__)
    trt = SimpleNamespace(
        ProfilingVerbosity=SimpleNamespace(DETAILED="DETAILED"),
        BuilderFlag=SimpleNamespace(TF32="TF32"),
    )
    configure(trt, builder, network, plan_profiles(512)[:2])
    assert cleared == ["TF32"]
    assert len(added) == 2
    assert profiles == [
        {"input_ids": ((1,), (32,), (512,)), "pad_index": ((1, 1), (1, 32), (4, 512))},
        {"input_ids": ((1,), (8192,), (16384,)), "pad_index": ((1, 1), (256, 32), (512, 64))},
    ]


def test_fused_layers_are_counted_in_the_last_list_and_per_profile() -> None:
    layer = "Name: _gemm_mha_v2_myl{}_5, LayerType: kgen, Inputs: []"
    other = "Name: __myl_FcAdd_myl0_2, LayerType: runtime_fusion, Inputs: [_gemm_mha]"
    lines = ["Layers:\n" + layer.format(9), "talk", "\n".join(["Layers:", layer.format(0), other])]
    assert count_fused_attention(lines, 1) == 1
    assert count_fused_attention([*lines, layer.format(1)], 2) == 1
    assert count_fused_attention([*lines, layer.format(1), layer.format(1)], 2) == 1
    assert count_fused_attention(["Layers:", other], 1) == 0
    assert count_fused_attention(["no list"], 1) is None


def _spec(folder: Path, graph: str) -> BuildSpec:
    return BuildSpec(
        folder=folder,
        graph=graph,
        dialect="packed-fp16",
        precision="fp16",
        max_tokens=96,
        num_layers=2,
    )
