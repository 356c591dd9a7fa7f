"""Decoders against transformers: every family, both dialects, any company."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embed_export.errors import ExportError
from embed_export.source import Source

Array = npt.NDArray[Any]
Make = Callable[..., Any]
Write = Callable[..., tuple[Path, Source]]
Run = Callable[..., list[Array]]

NAMES = (
    *("llama", "llama-biases", "mistral", "gritlm", "llama-bidirec"),
    *("qwen2", "qwen2-both-ways", "qwen2-sliding", "qwen2-sliding-both-ways"),
    *("qwen3", "voyage-qwen3", "gemma2", "gemma3-text", "gemma3-causal"),
)
# Rows, and tokens of the longest: padding differs in every batch.
SHAPES = [(1, 2), (3, 17), (4, 64), (2, 12), (1, 63)]
COSINE_MIN = 0.99999
# Largest difference measured: 1.5e-6 of the largest value, with float32 on either side.
TOLERANCE = 1e-5


def make_rows(shape: tuple[int, int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    num_rows, width = shape
    lengths = [width, *random.integers(1, width + 1, num_rows - 1)]
    return [random.integers(5, 300, length).tolist() for length in lengths]


def assert_same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.einsum("td,td->t", found, expected) / norms).min() >= COSINE_MIN
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_every_family_is_here(families: dict[str, object]) -> None:
    assert set(NAMES) == families.keys()


@pytest.fixture(scope="module", params=NAMES)
def tiny(request: pytest.FixtureRequest, make_decoder: Make, write: Write) -> tuple[Any, Path]:
    """One family: its checkpoint and its graphs."""
    decoder = make_decoder(request.param)
    return decoder, write(decoder.folder)[0]


def test_token_vectors_are_the_originals(tiny: tuple[Any, Path], run_graph: Run) -> None:
    decoder, folder = tiny
    original = decoder.original()
    for shape in SHAPES:
        rows = make_rows(shape)
        expected = np.concatenate([original(row) for row in rows])
        for found in (
            run_graph(folder, "packed", rows),
            run_graph(folder, "padded", rows),
            run_graph(folder, "padded", rows, left=True),
        ):
            assert_same(np.concatenate(found), expected)


def test_company_and_order_change_nothing(tiny: tuple[Any, Path], run_graph: Run) -> None:
    _, folder = tiny
    rows = make_rows((5, 48), seed=1)
    together = np.concatenate(run_graph(folder, "packed", rows))
    alone = np.concatenate([run_graph(folder, "packed", [row])[0] for row in rows])
    backwards = np.concatenate(run_graph(folder, "packed", rows[::-1])[::-1])
    assert np.abs(alone - together).max() < 5e-6
    assert np.abs(backwards - together).max() < 5e-6


@pytest.mark.parametrize("name", ["llama", "qwen2-sliding-both-ways", "qwen3", "gemma2"])
def test_half_precision_stays_close(
    name: str, make_decoder: Make, write: Write, run_graph: Run
) -> None:
    decoder = make_decoder(name)
    folder, _ = write(decoder.folder, precision="fp16")
    rows = make_rows((3, 40))
    original = decoder.original()
    expected = np.concatenate([original(row) for row in rows])
    found = np.concatenate(run_graph(folder, "packed-fp16", rows))
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.einsum("td,td->t", found, expected) / norms
    assert cosines.min() >= 0.999
    assert cosines.min() < 1 - 1e-8, "nothing was rounded at all"


@pytest.mark.parametrize(
    "rope_scaling",
    [
        {"type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.1, 1.5, 2.0],
            "long_factor": [2.0, 3.0, 5.0, 8.0],
            "original_max_position_embeddings": 64,
        },
    ],
    ids=["linear", "yarn", "longrope"],
)
def test_stretched_rotations(
    rope_scaling: dict[str, object], make_decoder: Make, write: Write, run_graph: Run
) -> None:
    decoder = make_decoder("llama", config={"rope_scaling": rope_scaling})
    folder, source = write(decoder.folder)
    is_longrope = rope_scaling.get("rope_type") == "longrope"
    assert source.spec.max_tokens == (64 if is_longrope else 128)
    rows = make_rows((3, source.spec.max_tokens))
    original = decoder.original()
    expected = np.concatenate([original(row) for row in rows])
    assert_same(np.concatenate(run_graph(folder, "packed", rows)), expected)


def test_qwen3_at_8192_tokens(make_decoder: Make, write: Write, run_graph: Run) -> None:
    decoder = make_decoder(
        "qwen3",
        config={
            "max_position_embeddings": 32768,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "num_hidden_layers": 1,
        },
    )
    folder, source = write(decoder.folder)
    assert source.spec.max_tokens == 32768
    rows = [make_rows((1, 8192))[0], make_rows((1, 100))[0]]
    original = decoder.original()
    for row, found in zip(rows, run_graph(folder, "packed", rows), strict=True):
        assert_same(found, original(row))


def test_tables_are_as_long_as_the_longest_text(make_decoder: Make, write: Write) -> None:
    decoder = make_decoder("llama", config={"max_position_embeddings": 8192})
    whole, _ = write(decoder.folder)
    short, source = write(decoder.folder, max_tokens=16)
    assert source.spec.max_tokens == 16
    large, small = ((one / "graphs" / "weights.bin").stat().st_size for one in (whole, short))
    # Cosines and sines, 4 of each for a position, in float32.
    assert large - small == pytest.approx((8192 - 16) * 8 * 4, abs=2 * 4096)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("qwen3", {"layers.1.self_attn.q_norm.weight": None}, ("q_norm", "missing")),
        ("qwen3", {"classifier.weight": (2, 32)}, ("classifier.weight", "Qwen3ForCausalLM")),
        ("llama", {"model.layers.0.self_attn.k_proj.weight": (32, 32)}, ("k_proj", "[32, 32]")),
        ("llama", {"model.layers.0.mlp.up_proj.bias": (64,)}, ("up_proj.bias",)),
        ("voyage-qwen3", {"linear.weight": None}, ("linear.weight", "missing")),
        ("gemma2", {"layers.0.pre_feedforward_layernorm.weight": None}, ("pre_feedforward",)),
    ],
)
def test_weights_are_strict(
    name: str,
    change: dict[str, Sequence[int] | None],
    words: tuple[str, ...],
    make_decoder: Make,
    write: Write,
) -> None:
    shapes = {key: shape for key, shape in change.items() if shape}
    removed = [key for key, shape in change.items() if not shape]
    decoder = make_decoder(
        name, without=removed, extra={key: np.ones(shape) for key, shape in shapes.items()}
    )
    with pytest.raises(ExportError) as caught:
        write(decoder.folder)
    assert all(word in str(caught.value) for word in words), caught.value


def test_weights_nobody_needs_may_lie_beside(make_decoder: Make, write: Write) -> None:
    frequencies = {
        f"model.layers.{index}.self_attn.rotary_emb.inv_freq": np.ones(4) for index in range(2)
    }
    write(make_decoder("llama", extra=frequencies).folder)
