"""int8 on the real model: near the original, steady in any company, a quarter of the size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embed_export.config import ExportConfig
from embed_export.corpus import real_texts
from embed_export.export import export_bundle
from embed_export.limits import TOLERANCES
from embed_runtime import Runtime
from embed_runtime.types import FloatArray

NUM_TEXTS = 200


@pytest.fixture(scope="module")
def int8_bundle(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("int8") / "bundle"
    engines = ("onnxruntime", "openvino")
    config = ExportConfig(model=str(minilm), output=output, precision="int8", engines=engines)
    return export_bundle(config)[0]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_vectors_stay_near_the_originals(
    int8_bundle: Path,
    minilm: Path,
    load_original: Callable[[Path], Callable[..., FloatArray]],
    engine: str,
) -> None:
    texts = list(real_texts(NUM_TEXTS))
    with Runtime(int8_bundle, engine=engine) as runtime:
        assert runtime.engine_entry.precision == "int8"
        vectors = runtime.embed(texts)
        alone = np.stack([runtime.embed(text) for text in texts[:20]])
    cosines = np.einsum("nd,nd->n", vectors, load_original(minilm)(texts))
    limits = TOLERANCES["int8"]
    assert limits.cosine_mean is not None
    assert cosines.min() >= limits.cosine_min
    assert cosines.mean() >= limits.cosine_mean
    assert cosines.mean() < 1 - 1e-6, "nothing was rounded"
    assert np.abs(alone - vectors[:20]).max() <= limits.batch_difference


def test_weights_take_a_quarter(int8_bundle: Path, bundle: Path) -> None:
    sizes = [(folder / "graphs" / "weights.bin").stat().st_size for folder in (int8_bundle, bundle)]
    assert sizes[0] < 0.27 * sizes[1]
