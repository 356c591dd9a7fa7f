"""Traced graphs in 16 bit, and on TensorRT-RTX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embed_export.source import Source
from embed_runtime.engines import BuiltEngine

Array = npt.NDArray[Any]
Written = tuple[Path, Source]
# Two heads of 64, as published models have them.
SIZES = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}


@pytest.fixture(scope="module")
def written(make_native: Callable[..., Path], write: Callable[..., Written]) -> Written:
    """A mixture of experts, in fp16."""
    return write(make_native("mixtral", **SIZES), precision="fp16", convert="embed")


def test_tensorrt_rtx_makes_attention_one_kernel(
    written: Written, build_with_rtx: Callable[..., BuiltEngine]
) -> None:
    folder, source = written
    built = build_with_rtx(folder, source, "fp16")
    assert built.num_fused_attention == source.spec.shape.num_layers == 1


def test_half_precision_stays_close(
    written: Written, run_graph: Callable[..., list[Array]]
) -> None:
    folder, _ = written
    random = np.random.default_rng(0)
    rows = [random.integers(3, 400, length).tolist() for length in (5, 40, 1)]
    whole, half = (
        np.concatenate(run_graph(folder, dialect, rows)) for dialect in ("padded", "packed-fp16")
    )
    norms = np.linalg.norm(whole, axis=1) * np.linalg.norm(half, axis=1)
    cosines = np.einsum("td,td->t", whole, half) / norms
    assert cosines.min() >= 0.999
    assert cosines.min() < 1 - 1e-8, "nothing was rounded at all"
