"""Traced graphs in 16 bit, and on TensorRT-RTX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embed_export.build import build_engine
from embed_export.source import Source
from embed_runtime.engines import BuildSpec, get_backend

Array = npt.NDArray[Any]


@pytest.mark.parametrize("name", ["phi3", "mixtral"])
def test_tensorrt_rtx_makes_each_attention_one_kernel(
    name: str,
    make_native: Callable[..., Path],
    write: Callable[..., tuple[Path, Source]],
) -> None:
    backend = get_backend("tensorrt_rtx")
    if not backend.probe().can_build:
        pytest.skip(f"needs TensorRT-RTX: {backend.probe().reason}")
    sizes = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}
    folder, source = write(make_native(name, **sizes), precision="bf16", convert="embed")
    built = build_engine(
        "tensorrt_rtx",
        BuildSpec(
            folder=folder,
            graph="graphs/packed-bf16.onnx",
            dialect="packed-bf16",
            precision="bf16",
            max_tokens=source.spec.max_tokens,
            num_layers=source.spec.shape.num_layers,
        ),
    )
    assert built.num_fused_attention == source.spec.shape.num_layers


def test_half_precision_stays_close(
    make_native: Callable[..., Path],
    write: Callable[..., tuple[Path, Source]],
    run_graph: Callable[..., list[Array]],
) -> None:
    folder, _ = write(make_native("phi3"), precision="fp16", convert="embed")
    random = np.random.default_rng(0)
    rows = [random.integers(3, 400, length).tolist() for length in (5, 40, 1)]
    whole, half = (
        np.concatenate(run_graph(folder, dialect, rows)) for dialect in ("padded", "packed-fp16")
    )
    cosines = np.einsum("td,td->t", whole, half) / (
        np.linalg.norm(whole, axis=1) * np.linalg.norm(half, axis=1)
    )
    assert cosines.min() >= 0.999
    assert cosines.min() < 1 - 1e-8, "nothing was rounded at all"
