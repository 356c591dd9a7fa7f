"""Bundles against the original: every recipe, every pooling mode, every precision, any company."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embed_export.limits import TOLERANCES
from embed_export.recipes import recipes
from embed_runtime import Runtime
from embed_runtime.manifest import PoolingMode
from embed_runtime.types import FloatArray, Precision

pytestmark = pytest.mark.usefixtures("short_timing")

MakeCheckpoint = Callable[..., Path]
Encode = Callable[..., FloatArray]
LoadOriginal = Callable[[Path], Encode]

# Recipes with tiny checkpoints of their own elsewhere: tests/recipes.
ELSEWHERE = {
    *("gemma2", "gemma3-text", "gritlm", "llama", "llama-bidirec", "mistral"),
    *("qwen2", "qwen3", "voyage-qwen3"),
    *("gte", "jina-embeddings-v3", "modernbert", "new", "nomic-bert", "nomic-bert-moe"),
}

TEXTS = [
    "a",
    "the quick brown fox",
    "",
    "retrieval needs vectors that are right " * 9,
    "Grüße aus München, 今日は良い天気です \U0001f642",
    "query: how do plants make sugar?",
    "x" * 200,
]
# Rows and columns of padding that differ in every batch.
SHAPES = [(1, 2), (3, 17), (4, 64), (2, 12), (1, 63)]


def cosines(vectors: FloatArray, others: FloatArray) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    result: npt.NDArray[np.float64] = np.einsum("nd,nd->n", vectors, others) / lengths
    return result


@pytest.fixture(scope="module", params=sorted(recipes().keys() - ELSEWHERE))
def pair(
    request: pytest.FixtureRequest, make_checkpoint: MakeCheckpoint, export: Callable[..., Path]
) -> tuple[Path, Path]:
    """One family: its checkpoint and its bundle."""
    checkpoint = make_checkpoint(request.param, pooling=["mean"], normalize=True)
    return checkpoint, export(checkpoint)


def test_every_family_gives_the_originals_vectors(
    pair: tuple[Path, Path], load_original: LoadOriginal
) -> None:
    checkpoint, bundle = pair
    with Runtime(bundle) as runtime:
        vectors = runtime.embed(TEXTS)
    expected = load_original(checkpoint)(TEXTS, batch_size=1)
    assert cosines(vectors, expected).min() >= TOLERANCES["fp32"].cosine_min
    assert np.abs(vectors - expected).max() < 1e-5


def test_company_and_order_change_nothing(pair: tuple[Path, Path]) -> None:
    _, bundle = pair
    with Runtime(bundle) as runtime:
        together = runtime.embed(TEXTS)
        alone = np.stack([runtime.embed(text) for text in TEXTS])
        backwards = runtime.embed(TEXTS[::-1])[::-1]
    assert np.abs(alone - together).max() < 2e-6
    assert np.abs(backwards - together).max() < 2e-6


def test_both_dialects_agree_whatever_the_padding(pair: tuple[Path, Path]) -> None:
    _, bundle = pair
    onnxruntime: Any = import_module("onnxruntime")
    padded = onnxruntime.InferenceSession(bundle / "graphs" / "padded.onnx")
    random = np.random.default_rng(0)
    with Runtime(bundle) as runtime:
        for num_rows, width in SHAPES:
            lengths = [width, *random.integers(1, width + 1, num_rows - 1)]
            rows = [random.integers(5, 60, length).tolist() for length in lengths]
            input_ids = np.full((num_rows, width), runtime.manifest.tokenizer.pad_token_id)
            mask = np.zeros((num_rows, width), np.int64)
            for index, row in enumerate(rows):
                input_ids[index, : len(row)] = row
                mask[index, : len(row)] = 1
            expected = padded.run(["embedding"], {"input_ids": input_ids, "attention_mask": mask})
            assert np.abs(runtime.embed(rows) - expected[0]).max() < 2e-6


@pytest.mark.parametrize(
    "modes",
    [
        ["cls"],
        ["max"],
        ["mean"],
        ["mean_sqrt_len_tokens"],
        ["weightedmean"],
        ["lasttoken"],
        ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
    ],
    ids="+".join,
)
def test_every_pooling_mode(
    make_checkpoint: MakeCheckpoint,
    export: Callable[..., Path],
    modes: list[PoolingMode],
    load_original: LoadOriginal,
) -> None:
    checkpoint = make_checkpoint("bert", pooling=modes)
    with Runtime(export(checkpoint)) as runtime:
        vectors = runtime.embed(TEXTS)
    expected = load_original(checkpoint)(TEXTS, batch_size=1)
    assert np.abs(vectors - expected).max() < 1e-4 * np.abs(expected).max()


def test_heads_prompts_limits_and_lowercasing_come_along(
    make_checkpoint: MakeCheckpoint, export: Callable[..., Path], load_original: LoadOriginal
) -> None:
    checkpoint = make_checkpoint(
        "bert",
        pooling=["cls", "mean"],
        heads=[(48, "Tanh"), (24, "GELU"), (16, "Identity")],
        normalize=True,
        prompts={"query": "query: ", "passage": "passage: "},
        default_prompt_name="query",
        max_seq_length=12,
        do_lower_case=True,
        module_names="new",
    )
    texts = [*TEXTS, "SHOUTED WORDS"]
    encode = load_original(checkpoint)
    with Runtime(export(checkpoint)) as runtime:
        assert runtime.manifest.max_tokens == 12
        assert runtime.manifest.dimensions.native == 16
        for name in ("query", "passage"):
            expected = encode(texts, prompt_name=name, batch_size=1)
            assert np.abs(runtime.embed(texts, prompt_name=name) - expected).max() < 1e-5
        by_default = encode(texts, batch_size=1)
        assert np.abs(runtime.embed(texts) - by_default).max() < 1e-5


def test_prompts_left_out_of_pooling(
    make_checkpoint: MakeCheckpoint, export: Callable[..., Path], load_original: LoadOriginal
) -> None:
    checkpoint = make_checkpoint(
        "bert", pooling=["mean", "cls"], include_prompt=False, prompts={"query": "query: how "}
    )
    encode = load_original(checkpoint)
    with Runtime(export(checkpoint)) as runtime:
        for prompt_name in ("query", None):
            expected = encode(TEXTS, prompt_name=prompt_name, batch_size=1)
            vectors = runtime.embed(TEXTS, prompt_name=prompt_name)
            assert np.abs(vectors - expected).max() < 1e-4


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_stays_within_its_limits(
    make_checkpoint: MakeCheckpoint,
    export: Callable[..., Path],
    precision: Precision,
    load_original: LoadOriginal,
) -> None:
    checkpoint = make_checkpoint("bert", pooling=["mean"], normalize=True)
    bundle = export(checkpoint, precision=precision)
    with Runtime(bundle) as runtime:
        vectors = runtime.embed(TEXTS)
    found = cosines(vectors, load_original(checkpoint)(TEXTS, batch_size=1))
    assert found.min() >= TOLERANCES[precision].cosine_min
    assert found.min() < 1 - 1e-9, "weights were not rounded at all"
    assert (bundle / "graphs" / f"packed-{precision}.onnx").is_file()


def test_without_sentence_transformers_files_the_architecture_decides(
    make_checkpoint: MakeCheckpoint, export: Callable[..., Path]
) -> None:
    with Runtime(export(make_checkpoint("bert"))) as runtime:
        assert runtime.manifest.pooling.modes == ("cls",)
        assert runtime.manifest.normalize
        assert np.allclose(np.linalg.norm(runtime.embed(TEXTS), axis=1), 1, atol=1e-6)


def test_the_users_pooling_wins(
    make_checkpoint: MakeCheckpoint, export: Callable[..., Path], load_original: LoadOriginal
) -> None:
    cls = make_checkpoint("bert", pooling=["cls"], normalize=True)
    mean = make_checkpoint("bert", pooling=["mean"], normalize=True)
    with Runtime(export(cls, pooling=("mean",))) as runtime:
        assert np.abs(runtime.embed(TEXTS) - load_original(mean)(TEXTS, batch_size=1)).max() < 1e-5
