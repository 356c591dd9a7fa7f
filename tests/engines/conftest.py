"""A tiny encoder with random weights, as an exporter writes it, and batches for it."""

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pytest

from embed_export.dialects import dialects_for
from embed_export.graph import OPSET, Graph, WeightsFile
from embed_export.json_object import JsonObject
from embed_export.pooler import write_outputs
from embed_export.recipes import Recipe, mpnet, roberta
from embed_export.token_heads import TokenHeads, write_token_outputs
from embed_export.weights import Weights
from embed_runtime.engines import Engine, LoadSpec, get_backend
from embed_runtime.manifest import (
    Dimensions,
    EngineEntry,
    Manifest,
    Model,
    Pooling,
    TokenizerSpec,
)
from embed_runtime.manifest import Graph as GraphEntry
from embed_runtime.types import Batch, FloatArray, OutputName, Precision

MakeBundle: TypeAlias = Callable[..., tuple[Path, Manifest]]
MakeSpec: TypeAlias = Callable[..., LoadSpec]
MakeBatch: TypeAlias = Callable[..., Batch]

OUTPUTS: tuple[OutputName, ...] = ("embedding", "pooled", "token_embeddings")
RECIPES: dict[str, Recipe] = {"roberta": roberta.RECIPE, "mpnet": mpnet.RECIPE}
HIDDEN_SIZE = 64
# Both families begin positions after the padding token, whose id is 1.
CONFIG = JsonObject(
    {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 2 * HIDDEN_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "vocab_size": 101,
        "type_vocab_size": 1,
        "max_position_embeddings": 98,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    },
    source="config.json",
)


class RandomWeights(Weights):
    """Has every weight a recipe asks for; large enough that each of them shows."""

    def take(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        array: FloatArray = rng.normal(0, 0.2, shape).astype(np.float32)
        return array + np.float32(name.endswith("LayerNorm.weight"))


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Write the graphs of an encoder, and the manifest an exporter would write for them.

    `make_bundle()` is a RoBERTa in fp32, `make_bundle("bf16", recipe="mpnet")` another. Tests share
    the folders: one that changes a file copies the folder first.
    """

    @cache
    def make(
        precision: Precision = "fp32",
        *,
        recipe: str = "roberta",
        include_prompt: bool = True,
        normalize: bool = True,
    ) -> tuple[Path, Manifest]:
        folder = tmp_path_factory.mktemp(f"{recipe}-{precision}")
        (folder / "graphs").mkdir()
        shape = RECIPES[recipe].shape(CONFIG)
        pooling = Pooling(modes=("mean",), include_prompt=include_prompt)
        entries: list[GraphEntry] = []
        with WeightsFile(folder / "graphs/weights.bin") as weights:
            for dialect in dialects_for(precision):
                graph = Graph(
                    dialect,
                    storage=precision,
                    weights=weights,
                    positions=shape.positions,
                    max_tokens=shape.max_tokens,
                )
                states = RECIPES[recipe].backbone(graph, CONFIG, RandomWeights({}))
                write_token_outputs(graph, states, hidden_size=HIDDEN_SIZE, heads=TokenHeads())
                write_outputs(
                    graph,
                    states,
                    hidden_size=HIDDEN_SIZE,
                    pooling=pooling,
                    heads=(),
                    normalize=normalize,
                )
                name = f"graphs/{dialect}.onnx"
                graph.save(folder / name, metadata={})
                files = (name, "graphs/weights.bin")
                entries.append(GraphEntry(dialect=dialect, files=files, opset=OPSET))
        return folder, Manifest(
            schema_version=1,
            model=Model(id="tests/encoder", architecture="Encoder", model_type=recipe),
            precision=precision,
            pooling=pooling,
            normalize=normalize,
            dimensions=Dimensions(native=HIDDEN_SIZE),
            max_tokens=shape.max_tokens,
            hidden_size=HIDDEN_SIZE,
            num_layers=shape.num_layers,
            tokenizer=TokenizerSpec(vocab_size=shape.vocab_size, pad_token_id=1),
            positions=shape.positions,
            outputs=OUTPUTS,
            graphs=tuple(entries),
            engines=(),
            versions={},
            files={},
        )

    return make


@pytest.fixture
def make_spec(make_bundle: MakeBundle) -> MakeSpec:
    """Say what to load: a backend's engine in a bundle of one precision.

    `folder` is another bundle folder, `manifest` and `entry` hold fields to replace; one thread
    and one stream, if nothing else is said.
    """

    def make(
        backend: str,
        precision: Precision = "fp32",
        *,
        folder: Path | None = None,
        include_prompt: bool = True,
        normalize: bool = True,
        manifest: dict[str, Any] | None = None,
        entry: dict[str, Any] | None = None,
        num_threads: int = 1,
        num_streams: int | None = 1,
    ) -> LoadSpec:
        if backend == "openvino":
            pytest.importorskip("openvino")
        found, described = make_bundle(
            precision, include_prompt=include_prompt, normalize=normalize
        )
        computes = get_backend(backend).precision(precision)
        assert computes is not None
        dialect = get_backend(backend).dialect(precision)
        engine = EngineEntry(
            backend=backend,
            file=f"graphs/{dialect}.onnx",
            files=(f"graphs/{dialect}.onnx", "graphs/weights.bin"),
            dialect=dialect,
            precision=computes,
            device="cpu",
            producer="",
            certified=True,
            fingerprint="",
        )
        return LoadSpec(
            folder=folder or found,
            manifest=msgspec.structs.replace(described, **(manifest or {})),
            entry=msgspec.structs.replace(engine, **(entry or {})),
            num_threads=num_threads,
            num_streams=num_streams,
        )

    return make


@pytest.fixture
def load_engine(make_spec: MakeSpec) -> Callable[..., Engine]:
    """Load an engine; takes what `make_spec` takes."""

    def load(backend: str, precision: Precision = "fp32", **changes: Any) -> Engine:
        return get_backend(backend).load(make_spec(backend, precision, **changes))

    return load


@pytest.fixture(scope="session")
def make_batch() -> MakeBatch:
    """Make a batch with rows of these lengths; ids are random, the padding token among them."""

    def make(
        lengths: Sequence[int],
        *,
        outputs: tuple[OutputName, ...] = OUTPUTS,
        num_skipped: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Batch:
        ids = np.random.default_rng(seed).integers(0, 101, sum(lengths))
        return Batch(
            input_ids=ids.astype(np.int32),
            cu_seqlens=np.cumsum([0, *lengths]).astype(np.int32),
            num_skipped=np.array(num_skipped or [0] * len(lengths), np.int32),
            adapters=np.full(len(lengths), -1, np.int32),
            outputs=outputs,
        )

    return make
