"""int8 products: near the float ones, alike in every dialect, each token by itself."""

# torch, transformers and onnx leave the types of what they give open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from transformers import AutoModel

from embed_export import channels, layers
from embed_export.channels import measure_channels
from embed_export.config import ExportConfig
from embed_export.corpus import real_texts
from embed_export.dialects import write_graphs
from embed_export.errors import ParityError
from embed_export.graph import Graph, WeightsFile
from embed_export.layers import Activation, Linear
from embed_export.probe import Reference
from embed_export.source import Source, read_source
from embed_export.verify import certify
from embed_runtime.bundle import read_manifest
from embed_runtime.manifest import Dialect, Positions
from embed_runtime.types import FloatArray

INPUTS, OUTPUTS, TOKENS = 48, 24, 40
DIALECTS: tuple[Dialect, ...] = ("padded", "packed", "packed-int8")

MakeCheckpoint = Callable[..., Path]
# Multiplies rows of values by a weight; see `multiply`.
Multiply = Callable[..., FloatArray]


@pytest.fixture
def weight() -> FloatArray:
    return np.random.default_rng(1).normal(0, 0.2, (OUTPUTS, INPUTS)).astype(np.float32)


@pytest.fixture
def values() -> FloatArray:
    return np.random.default_rng(2).normal(0, 1, (TOKENS, INPUTS)).astype(np.float32)


@pytest.fixture
def multiply(tmp_path: Path) -> Multiply:
    """Run a graph of one linear layer with a bias of ones, which is taken off the result."""

    def run(
        values: FloatArray,
        weight: FloatArray,
        *,
        dialect: Dialect = "packed-int8",
        behind: Activation = "identity",
        maxima: FloatArray | None = None,
        rows: Sequence[int] | None = None,
    ) -> FloatArray:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        layer = Linear(
            name="layer",
            out_features=len(weight),
            weight=weight.copy,
            bias=lambda: np.ones(len(weight), np.float32),
        )
        with WeightsFile(folder / "weights.bin") as file:
            graph = Graph(
                dialect,
                storage="int8",
                weights=file,
                positions=Positions(),
                max_tokens=TOKENS,
                channel_maxima=None if maxima is None else {"layer.weight": maxima},
            )
            table = graph.stored("values", "fp32", lambda: values)
            tokens = graph.op("Gather", [table, graph.input_ids])
            made = layers.linear(graph, tokens, layer, behind=behind)
            graph.output("token_embeddings", made, ["T", len(weight)])
            graph.save(folder / "graph.onnx", metadata={})
        ids = np.array(range(len(values)) if rows is None else rows)
        [output] = _run(folder / "graph.onnx", {"input_ids": ids if graph.packed else ids[None]})
        return output.reshape(len(ids), -1) - 1

    return run


def _run(path: Path, feeds: Mapping[str, npt.NDArray[Any]]) -> list[FloatArray]:
    session: Any = import_module("onnxruntime").InferenceSession(str(path))
    outputs: list[FloatArray] = session.run(None, dict(feeds))
    return outputs


def _error(made: FloatArray, values: FloatArray, weight: FloatArray) -> float:
    """Root of the mean square, over that of the exact product."""
    exact = values.astype(np.float64) @ weight.astype(np.float64).T
    return float(np.sqrt(np.square(made - exact).mean() / np.square(exact).mean()))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_product_is_near_the_exact_one(
    dialect: Dialect, values: FloatArray, weight: FloatArray, multiply: Multiply
) -> None:
    made = multiply(values, weight, dialect=dialect, maxima=np.abs(values).max(axis=0))
    # Half a level of 127, evenly spread, is 0.23 % of the largest value, which is 3 typical ones.
    assert 1e-4 < _error(made, values, weight) < 0.02


def test_only_the_integer_dialect_rounds_activations(
    values: FloatArray, weight: FloatArray, multiply: Multiply
) -> None:
    padded, packed, integers = (multiply(values, weight, dialect=dialect) for dialect in DIALECTS)
    np.testing.assert_allclose(packed, padded, rtol=0, atol=1e-5)
    assert np.abs(integers - packed).max() > 1e-3


def test_a_token_does_not_depend_on_the_others(
    values: FloatArray, weight: FloatArray, multiply: Multiply
) -> None:
    values[3] *= 1000
    together = multiply(values, weight)
    for row in (0, 3, 7):
        np.testing.assert_array_equal(multiply(values, weight, rows=[row])[0], together[row])


def test_outlier_channels_are_shrunk(
    values: FloatArray, weight: FloatArray, multiply: Multiply
) -> None:
    # A channel that takes all levels, and adds no more to the product than any other.
    values[:, 5] *= 50
    weight[:, 5] /= 50
    maxima = np.abs(values).max(axis=0)
    plain = _error(multiply(values, weight), values, weight)
    smoothed = _error(multiply(values, weight, maxima=maxima), values, weight)
    assert smoothed < plain / 3


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "relu", "sigmoid"])
def test_one_sided_values_use_all_levels(
    activation: Activation, values: FloatArray, weight: FloatArray, multiply: Multiply
) -> None:
    functions: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
        "gelu": torch.nn.GELU(),
        "gelu_tanh": torch.nn.GELU(approximate="tanh"),
        "silu": torch.nn.SiLU(),
        "relu": torch.nn.ReLU(),
        "sigmoid": torch.nn.Sigmoid(),
    }
    # Wide enough to touch the lowest value of every function.
    made = functions[activation](torch.from_numpy(3 * values)).numpy()
    plain = _error(multiply(made, weight, dialect="packed"), made, weight)
    two_sided = _error(multiply(made, weight), made, weight)
    one_sided = _error(multiply(made, weight, behind=activation), made, weight)
    assert (one_sided**2 - plain**2) < 0.5 * (two_sided**2 - plain**2)


def test_zeros_stay_zeros(weight: FloatArray, multiply: Multiply) -> None:
    values = np.zeros((3, INPUTS), np.float32)
    nothing = np.zeros(INPUTS, np.float32)
    np.testing.assert_array_equal(multiply(values, weight, maxima=nothing), 0)
    np.testing.assert_array_equal(multiply(values + 1, weight * 0, maxima=nothing + 1), 0)


def test_a_channel_that_was_silent_when_measured_may_speak_later(
    values: FloatArray, weight: FloatArray, multiply: Multiply
) -> None:
    maxima = np.abs(values).max(axis=0)
    maxima[4] = 0
    assert _error(multiply(values, weight, maxima=maxima), values, weight) < 0.03


@pytest.fixture
def source(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Source:
    checkpoint = make_checkpoint("bert", pooling=["mean"], include_prompt=False)
    return read_source(
        ExportConfig(model=str(checkpoint), output=tmp_path / "out", precision="int8")
    )


def test_channels_are_measured_as_the_original_has_them(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "NUM_TEXTS", 5)
    folder = tmp_path / "bundle"
    folder.mkdir()
    progress: list[tuple[int, int]] = []

    def advance(done: int, total: int) -> None:
        progress.append((done, total))

    measured = measure_channels(source, folder, advance)
    assert list(folder.iterdir()) == []
    assert progress == [(done, 5) for done in range(1, 6)]

    expected = _measure_original(source, real_texts(5))
    names = {name.removesuffix(".weight"): name for name in measured}
    for name in names:
        original = name.removesuffix(".qkv")
        np.testing.assert_allclose(measured[names[name]], expected[original], rtol=1e-4, atol=1e-5)
    # Both layers' four products.
    assert len(names) == 8


def test_every_dialect_uses_the_same_weights(source: Source, tmp_path: Path) -> None:
    maxima = {
        f"encoder.layer.{index}.{name}.weight": np.ones(32, np.float32)
        for index in range(2)
        for name in ("attention.self.query.qkv", "attention.output.dense", "intermediate.dense")
    }
    write_graphs(tmp_path, source, maxima)
    stored = [
        {
            tensor.name: [entry.value for entry in tensor.external_data]
            for tensor in onnx.load(
                tmp_path / f"graphs/{dialect}.onnx", load_external_data=False
            ).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8
        }
        for dialect in DIALECTS
    ]
    assert stored[0] == stored[1] == stored[2]
    assert len(stored[0]) == 2 + 2 * 4


def test_a_cpu_that_cannot_is_named_when_a_bundle_is_verified(
    dummy_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = import_module("embed_runtime.engines.onnxruntime")
    monkeypatch.setattr(backend, "int8_problem", lambda: "no VNNI")
    manifest = read_manifest(dummy_bundle(precision="int8"))
    entry = msgspec.structs.replace(manifest.engines[0], backend="onnxruntime", precision="int8")
    reference = Reference(texts=("a",), vectors=np.ones((1, 32), np.float32), max_activation=1.0)
    with pytest.raises(ParityError, match="onnxruntime: it cannot compute int8 bundles on this"):
        certify(Path(), manifest, reference, engines=[entry])


def _measure_original(source: Source, texts: Sequence[str]) -> dict[str, FloatArray]:
    """Watch what the linear layers of transformers' own model read."""
    model: Any = AutoModel.from_pretrained(source.checkpoint.model_folder)
    largest: dict[str, FloatArray] = {}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor]], None]:
        def hook(_: object, inputs: tuple[torch.Tensor]) -> None:
            seen = inputs[0].abs().amax(dim=(0, 1)).numpy()
            largest[name] = np.maximum(largest.get(name, seen), seen)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "pooler" not in name:
            module.register_forward_pre_hook(watch(name))
    with torch.inference_mode():
        for text in texts:
            ids = source.tokenizer.encode(text, max_tokens=source.spec.max_tokens)
            model(input_ids=torch.tensor([ids]))
    return largest
