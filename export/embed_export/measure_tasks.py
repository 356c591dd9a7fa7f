"""Measures what an engine gives besides the embedding: vectors of tokens, weights of words."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from embed_export.probe import Reference, SparseReference, TokenReference
from embed_runtime import Runtime
from embed_runtime.certificate import TaskFigures
from embed_runtime.errors import EngineError
from embed_runtime.types import FloatArray, Task

_DoubleArray = npt.NDArray[np.float64]

# Weights of a text that are smaller together than this share of the heaviest text's are rounding
# of what the cut at zero left over: they have a size, and no direction.
SMALLEST_SHARE = 0.05


def measure_tasks(runtime: Runtime, reference: Reference) -> dict[Task, TaskFigures]:
    """Measure each task but `embed` that the reference has something of.

    Raises:
        EngineError: The engine failed, or gives other sizes than the original model.
    """
    figures: dict[Task, TaskFigures] = {}
    texts = reference.plain_texts
    if reference.tokens is not None and any(reference.tokens.counts):
        figures["token_embed"] = _measure_tokens(runtime, texts, reference.tokens)
    if reference.sparse is not None:
        figures["sparse"] = _measure_weights(runtime, texts, reference.sparse)
    return figures


def _measure_tokens(
    runtime: Runtime, texts: tuple[str, ...], reference: TokenReference
) -> TaskFigures:
    kept = [(text, count) for text, count in zip(texts, reference.counts, strict=True) if count]
    outputs = runtime.encode([text for text, _ in kept], task="token_embed", prompt="")
    expected = reference.vectors
    found = np.concatenate([output.data for output in outputs])
    sizes = [len(output.data) for output in outputs]
    if found.shape != expected.shape or sizes != [count for _, count in kept]:
        raise EngineError(
            f"gives token vectors of shape {found.shape}, the original model {expected.shape}"
        )
    lengths = _lengths(expected)
    cosines = _cosines(found, expected)
    differences = np.abs(found - expected).max(axis=1) / np.where(lengths == 0, 1, lengths)
    return TaskFigures(
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        max_difference=float(differences.max()),
        num_vectors=len(expected),
    )


def _measure_weights(
    runtime: Runtime, texts: tuple[str, ...], reference: SparseReference
) -> TaskFigures:
    outputs = runtime.encode(texts, task="sparse", prompt="")
    ends = np.cumsum(reference.counts)
    pairs = [
        _align(output.data, dict(zip(ids.tolist(), weights.tolist(), strict=True)))
        for output, ids, weights in zip(
            outputs,
            np.split(reference.ids, ends[:-1]),
            np.split(reference.weights, ends[:-1]),
            strict=True,
        )
    ]
    lengths = np.array([np.linalg.norm(expected) for _, expected in pairs])
    heavy = lengths > SMALLEST_SHARE * lengths.max()
    cosines = np.array(
        [_cosines(*pair)[0] for pair, is_heavy in zip(pairs, heavy, strict=True) if is_heavy]
    )
    largest = float(max((expected.max(initial=0) for _, expected in pairs), default=0)) or 1.0
    difference = max(float(np.abs(found - expected).max(initial=0)) for found, expected in pairs)
    return TaskFigures(
        cosine_min=float(cosines.min(initial=1)),
        cosine_mean=float(cosines.mean()) if len(cosines) else 1.0,
        max_difference=difference / largest,
        num_vectors=len(texts),
    )


def _align(
    found: Mapping[int, float], expected: Mapping[int, float]
) -> tuple[_DoubleArray, _DoubleArray]:
    """Lay two sets of weights out over the words that either has: two [1, words]."""
    words = sorted({*found, *expected})
    return (
        np.array([[found.get(word, 0.0) for word in words]]),
        np.array([[expected.get(word, 0.0) for word in words]]),
    )


def _lengths(vectors: npt.NDArray[np.floating]) -> _DoubleArray:
    lengths: _DoubleArray = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return lengths


def _cosines(vectors: FloatArray | _DoubleArray, others: FloatArray | _DoubleArray) -> _DoubleArray:
    products = _lengths(vectors) * _lengths(others)
    dots = np.einsum("nd,nd->n", vectors.astype(np.float64), others.astype(np.float64))
    cosines: _DoubleArray = dots / np.where(products == 0, 1, products)
    return cosines
