"""Measures one loaded engine: how close to the original model, how steady, how fast."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embed_export.corpus import real_texts
from embed_export.measure_tasks import SMALLEST_SHARE, measure_tasks
from embed_export.probe import Reference
from embed_runtime import EmbedRequest, Runtime
from embed_runtime.certificate import Figures, Machine
from embed_runtime.errors import EngineError
from embed_runtime.manifest import Device
from embed_runtime.types import FloatArray, IntArray

_DoubleArray: TypeAlias = npt.NDArray[np.float64]
# A task, or None, and a text.
_Probe: TypeAlias = tuple[str | None, str]

# Longer texts fill a batch of their own: they have no neighbours to depend on.
_MAX_MIXED_TOKENS = 2048
# Passes grow until one takes this long; then the median of three counts. Half of it is one batch or
# two of a model of 100 million parameters on two cores, and chose between equals by chance.
_PASS_SECONDS = 1.0
_MAX_SPEED_TEXTS = 512
_ROUNDING = 1e-6


def measure(runtime: Runtime, reference: Reference) -> Figures:
    """Put an engine through everything its certificate states.

    Args:
        runtime: Serves the engine.
        reference: What the original model makes of the probe texts.

    Raises:
        EngineError: The engine failed, or gives vectors of another size.
    """
    tasks = reference.tasks or (None,) * len(reference.texts)
    probes = list(zip(tasks, reference.texts, strict=True))
    vectors, num_tokens = _embed(runtime, probes)
    if vectors.shape != reference.vectors.shape:
        raise EngineError(
            f"gives vectors of {vectors.shape[1]} values, the original model of"
            f" {reference.vectors.shape[1]}"
        )
    mixed = num_tokens <= _MAX_MIXED_TOKENS
    mixed_probes = [probe for probe, short in zip(probes, mixed.tolist(), strict=True) if short]
    alone = np.concatenate([_embed(runtime, [probe])[0] for probe in mixed_probes])
    shuffled = _embed_shuffled(runtime, mixed_probes)
    scale = _scale(reference.vectors, is_splade=runtime.manifest.is_splade)
    scaled, expected = vectors / scale, reference.vectors / scale
    cosines = _cosines(scaled, expected)
    if runtime.manifest.is_splade:
        cosines[_lengths(expected) < 1 - _ROUNDING] = 1
    finite: npt.NDArray[np.bool_] = np.isfinite(vectors)
    return Figures(
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        max_abs_difference=_difference(scaled, expected),
        max_norm_error=_difference(_lengths(scaled), _lengths(expected)),
        sign_flips=int(np.count_nonzero((scaled < 0) != (expected < 0))) / scaled.size,
        batch_difference_alone=_difference(alone / scale[mixed], scaled[mixed]),
        batch_difference_shuffled=_difference(shuffled / scale[mixed], scaled[mixed]),
        num_non_finite=vectors.size - int(np.count_nonzero(finite)),
        num_texts=len(probes),
        num_tokens=int(num_tokens.sum()),
        tokens_per_second=_tokens_per_second(
            runtime, real_texts(_MAX_SPEED_TEXTS) or reference.texts
        ),
        tasks=measure_tasks(runtime, reference),
    )


def describe_machine(device: Device) -> Machine:
    """Name the hardware that an engine on this device runs on."""
    return Machine(
        cpu=_first_value(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        num_cpus=len(os.sched_getaffinity(0)),
        gpu=_gpu_name() if device == "cuda" else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _scale(vectors: FloatArray, *, is_splade: bool) -> _DoubleArray:
    """[N, 1] what differences are divided by: the length of each vector."""
    scale = _lengths(vectors)[:, None]
    if is_splade:
        # Where hardly any word weighs anything, there is a size to compare and no direction.
        scale = np.maximum(scale, SMALLEST_SHARE * scale.max())
    scale[scale == 0] = 1
    return scale


def _embed(runtime: Runtime, probes: Sequence[_Probe]) -> tuple[FloatArray, IntArray]:
    """Embed texts for their tasks, all at once: texts of different tasks share batches.

    Returns:
        [N, D] float32, and the number of tokens of each, [N] int32.
    """
    by_task: dict[str | None, list[int]] = {}
    for index, (task, _) in enumerate(probes):
        by_task.setdefault(task, []).append(index)
    jobs = [
        runtime.submit(
            EmbedRequest(
                inputs=[probes[index][1] for index in indices],
                prompt_name=task,
                prompt="" if task is None else None,
            )
        )
        for task, indices in by_task.items()
    ]
    results = [job.result() for job in jobs]
    order = np.argsort(np.concatenate(list(by_task.values())))
    vectors = np.concatenate([result.vectors for result in results])[order]
    return vectors, np.concatenate([result.num_tokens for result in results])[order]


def _embed_shuffled(runtime: Runtime, probes: Sequence[_Probe]) -> FloatArray:
    """Embed in another order and in two calls: sorting by length alone would undo the order."""
    order: list[int] = np.random.default_rng(0).permutation(len(probes)).tolist()
    halves = [half for half in (order[::2], order[1::2]) if half]
    vectors = np.concatenate(
        [_embed(runtime, [probes[index] for index in half])[0] for half in halves]
    )
    return vectors[np.argsort(np.concatenate(halves))]


def _tokens_per_second(runtime: Runtime, texts: Sequence[str]) -> float:
    """Time the engine on real text; growing towards a long enough pass warms it up."""
    count, seconds = 0, 0.0
    while count < len(texts) and seconds < _PASS_SECONDS:
        count = min(max(4, 2 * count), len(texts))
        seconds = _time(runtime, texts[:count])
    seconds = statistics.median(_time(runtime, texts[:count]) for _ in range(3))
    num_tokens = sum(output.num_tokens for output in runtime.encode(texts[:count], prompt=""))
    return num_tokens / seconds


def _time(runtime: Runtime, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    if runtime.manifest.is_splade:
        runtime.encode(texts, task="sparse", prompt="")
    else:
        runtime.embed(texts, prompt="")
    return time.perf_counter() - start


def _lengths(vectors: npt.NDArray[np.floating]) -> _DoubleArray:
    lengths: _DoubleArray = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return lengths


def _cosines(vectors: _DoubleArray, others: _DoubleArray) -> _DoubleArray:
    """Compare row by row: [N] float64; two zero vectors agree, one alone does not."""
    products = _lengths(vectors) * _lengths(others)
    agree = (_lengths(vectors) == 0) & (_lengths(others) == 0)
    dots = np.einsum("nd,nd->n", vectors, others)
    return np.where(agree, 1.0, dots / np.where(products == 0, 1, products))


def _difference(values: _DoubleArray, others: _DoubleArray) -> float:
    return float(np.max(np.abs(values - others), initial=0))


def _gpu_name() -> str | None:
    names = (
        _first_value(path, "Model")
        for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    )
    return next((name for name in names if name), None)


def _first_value(path: Path, key: str) -> str | None:
    """Look up "key : value" in one of the kernel's text files."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
