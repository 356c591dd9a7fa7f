"""Architectures without a recipe, exported whole: the vectors are transformers' own."""

# transformers and torch leave the types of what they give open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from embed_export.config import ExportConfig
from embed_export.export import export_bundle
from embed_runtime import Runtime
from embed_runtime.manifest import PoolingMode

pytestmark = pytest.mark.usefixtures("fast_exports")

Array = npt.NDArray[Any]
NAMES = ("phi3", "phi3-longrope", "eurobert", "mixtral", "qwen3-moe", "olmo2")
POOLING: dict[str, tuple[PoolingMode, ...]] = {"eurobert": ("mean",)}
ENGINES = {"qwen3-moe": ("onnxruntime", "openvino")}
LENGTHS = (1, 2, 17, 64, 3, 40)
COSINE_MIN = 0.99999


@pytest.fixture(scope="module", params=NAMES)
def exported(
    request: pytest.FixtureRequest,
    make_native: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path, Path]:
    """A family's name, its checkpoint and its bundle."""
    name = request.param
    checkpoint = make_native(name)
    bundle, certificate = export_bundle(
        ExportConfig(
            model=str(checkpoint),
            output=tmp_path_factory.mktemp("bundles") / name,
            engines=ENGINES.get(name, ("onnxruntime",)),
            convert="embed",
            pooling=POOLING.get(name),
        )
    )
    assert all(engine.passed for engine in certificate.engines)
    return name, checkpoint, bundle


def make_rows() -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(3, 400, length).tolist() for length in LENGTHS]


def load_original(checkpoint: Path) -> Callable[[list[int]], Array]:
    model: Any = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32)

    def token_vectors(row: list[int]) -> Array:
        with torch.inference_mode():
            states: Array = model(input_ids=torch.tensor([row])).last_hidden_state[0].numpy()
        return states

    return token_vectors


def test_vectors_are_the_originals_in_any_company(exported: tuple[str, Path, Path]) -> None:
    name, checkpoint, bundle = exported
    rows = make_rows()
    original = load_original(checkpoint)
    tokens = [original(row) for row in rows]
    pooled = [one.mean(axis=0) if name == "eurobert" else one[-1] for one in tokens]
    expected = np.stack([vector / np.linalg.norm(vector) for vector in pooled])
    for engine in ENGINES.get(name, ("onnxruntime",)):
        with Runtime(bundle, engine=engine) as runtime:
            together = runtime.embed(rows)
            alone = np.stack([runtime.embed([row])[0] for row in rows])
            backwards = runtime.embed(rows[::-1])[::-1]
        for found in (together, alone, backwards):
            assert np.einsum("bd,bd->b", found, expected).min() >= COSINE_MIN
            assert np.abs(found - expected).max() < 1e-5


def test_the_padded_graph_gives_the_same_tokens(
    exported: tuple[str, Path, Path], run_graph: Callable[..., list[Array]]
) -> None:
    _, checkpoint, bundle = exported
    rows = make_rows()
    original = load_original(checkpoint)
    for row, found in zip(rows, run_graph(bundle, "padded", rows), strict=True):
        expected = original(row)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
