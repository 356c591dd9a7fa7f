"""TensorRT-RTX builds decoders without a GPU, and makes each attention one kernel where it can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embed_export.source import Source
from embed_runtime.engines import BuiltEngine
from embed_runtime.types import Precision

NUM_LAYERS = 2


@pytest.mark.parametrize(
    ("name", "precision", "head_dim", "num_fused"),
    [
        ("llama", "fp16", None, NUM_LAYERS),
        ("llama-bidirec", "fp16", None, NUM_LAYERS),
        ("mistral", "bf16", None, NUM_LAYERS),
        ("qwen2-sliding-both-ways", "fp16", None, NUM_LAYERS),
        ("qwen3", "bf16", 128, NUM_LAYERS),
        ("voyage-qwen3", "bf16", 128, NUM_LAYERS),
        ("gemma3-text", "bf16", 256, NUM_LAYERS),
        # Nothing fuses around the tanh of the soft cap.
        ("gemma2", "bf16", 256, 0),
    ],
)
def test_every_attention_is_one_kernel(
    name: str,
    precision: Precision,
    head_dim: int | None,
    num_fused: int,
    make_decoder: Callable[..., Any],
    write: Callable[..., tuple[Path, Source]],
    build_with_rtx: Callable[..., BuiltEngine],
) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 512}
    config = {**sizes, "head_dim": head_dim} if head_dim else sizes
    folder, source = write(make_decoder(name, config=config).folder, precision=precision)
    built = build_with_rtx(folder, source, precision)
    assert built.num_fused_attention == num_fused
