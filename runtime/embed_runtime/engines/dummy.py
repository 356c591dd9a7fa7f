"""Deterministic vectors out of token ids, without a model: tests and benchmarks of the rest."""

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embed_runtime.engines import (
    Availability,
    Backend,
    BuildSpec,
    BuiltEngine,
    Engine,
    LoadSpec,
    RunBatch,
)
from embed_runtime.manifest import Dialect
from embed_runtime.types import Batch, FloatArray, IntArray, OutputName, Precision

_PRODUCER = "dummy 1"

Fault: TypeAlias = Callable[[Batch, dict[OutputName, FloatArray]], None]


class DummyEngine:
    """Hashes token ids into vectors; a row depends on its own ids, skipped count and adapter."""

    num_streams = 1
    run_express: RunBatch | None = None

    def __init__(
        self,
        *,
        dimensions: int,
        hidden_size: int,
        normalize: bool,
        is_splade: bool = False,
        fault: Fault | None = None,
    ) -> None:
        """Make an engine.

        Args:
            dimensions: Size of a row's vector.
            hidden_size: Size of a token's vector.
            normalize: Whether `embedding` has unit length.
            is_splade: Whether a row's vector is weights of the vocabulary, most of them zero.
            fault: Called with every batch and what it would return; may wait, raise, or put
                other outputs in their place.
        """
        self._dimensions = dimensions
        self._hidden_size = hidden_size
        self._normalize = normalize
        self._is_splade = is_splade
        self._fault = fault

    def run(self, batch: Batch) -> dict[OutputName, FloatArray]:
        """Compute `batch.outputs`; see `Engine.run`."""
        outputs: dict[OutputName, FloatArray] = {}
        if "token_embeddings" in batch.outputs:
            outputs["token_embeddings"] = self._hash_tokens(batch, self._hidden_size)
        if "token_weights" in batch.outputs:
            outputs["token_weights"] = np.maximum(self._hash_tokens(batch, 1), 0)
        if self._is_splade:
            outputs["embedding"] = self._weigh(batch)
        elif "pooled" in batch.outputs or "embedding" in batch.outputs:
            keys = self._hash_rows(batch)
            unit = _unit(_hash_vectors(keys, self._dimensions))
            if "embedding" in batch.outputs:
                outputs["embedding"] = unit if self._normalize else _scale(unit, keys)
            if "pooled" in batch.outputs:
                outputs["pooled"] = _scale(unit, keys)
        if self._fault is not None:
            self._fault(batch, outputs)
        return outputs

    def close(self) -> None:
        """Hold nothing, free nothing."""

    def _hash_tokens(self, batch: Batch, size: int) -> FloatArray:
        """Hash each token's id and its row's adapter."""
        adapters = np.repeat(batch.adapters, batch.lengths)
        return _hash_vectors(_with_adapters(batch.input_ids.astype(np.uint32), adapters), size)

    def _hash_rows(self, batch: Batch) -> npt.NDArray[np.uint32]:
        """Hash each row's pooled ids, order included, and its adapter: [B]."""
        starts, lengths = batch.cu_seqlens[:-1], batch.lengths
        positions = np.arange(batch.num_tokens, dtype=np.int32) - np.repeat(starts, lengths)
        keys = _mix(_mix(batch.input_ids) ^ (positions * np.int32(0x5BD1E995)).view(np.uint32))
        if batch.num_skipped.any():
            keys *= positions >= np.repeat(batch.num_skipped, lengths)
        return _with_adapters(np.add.reduceat(keys, starts), batch.adapters)

    def _weigh(self, batch: Batch) -> FloatArray:
        """Weigh the tokens of each row, and for each of them one more token of the vocabulary."""
        weights = np.zeros((batch.num_rows, self._dimensions), np.float32)
        rows = np.repeat(np.arange(batch.num_rows), batch.lengths)
        for ids, least in ((batch.input_ids, 1), (_mix(batch.input_ids), 0)):
            columns = ids % self._dimensions
            found = least + np.abs(_hash_vectors(ids, 1)[:, 0])
            np.maximum.at(weights, (rows, columns), found)
        return weights


def _mix(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """Scatter 32-bit integers (the finalizer of MurmurHash3, in the public domain)."""
    mixed = values.astype(np.uint32)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _with_adapters(keys: npt.NDArray[np.uint32], adapters: IntArray) -> npt.NDArray[np.uint32]:
    """Give the same key other values under each adapter; without one it stays."""
    if adapters.max() < 0:
        return keys
    return np.where(adapters < 0, keys, keys ^ _mix(adapters + 1))


def _hash_vectors(keys: npt.NDArray[np.integer], size: int) -> FloatArray:
    """Give every key its own [size] values between -1 and 1."""
    mixed = (_mix(keys) | np.uint32(1))[:, None] * _columns(size)
    mixed ^= mixed >> np.uint32(15)
    values: FloatArray = mixed.view(np.int32).astype(np.float32)
    values *= np.float32(2**-31)
    return values


@cache
def _columns(size: int) -> npt.NDArray[np.uint32]:
    """Give odd factors, one a column."""
    return _mix(np.arange(1, size + 1)) | np.uint32(1)


def _unit(vectors: FloatArray) -> FloatArray:
    """Scale rows to length 1, in place."""
    norms: FloatArray = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= np.maximum(norms, np.float32(1e-12))[:, None]
    return vectors


def _scale(vectors: FloatArray, keys: npt.NDArray[np.uint32]) -> FloatArray:
    """Give every row a length of its own, between 1 and 2."""
    lengths: FloatArray = 1 + (keys % np.uint32(1000)).astype(np.float32) / np.float32(1000)
    return vectors * lengths[:, None]


def _dialect(_: Precision) -> Dialect:
    return "packed"


def _precision(precision: Precision) -> Precision:
    return precision


def _probe() -> Availability:
    return Availability(reason="", producer=_PRODUCER, can_build=True)


def _build(spec: BuildSpec) -> BuiltEngine:
    return BuiltEngine(file=spec.graph, files=(spec.graph,), producer=_PRODUCER, device="cpu")


def _load(spec: LoadSpec) -> Engine:
    manifest = spec.manifest
    head = manifest.token_head
    return DummyEngine(
        dimensions=manifest.dimensions.native,
        hidden_size=head.dimensions if head else manifest.hidden_size,
        normalize=manifest.normalize,
        is_splade=manifest.is_splade,
    )


BACKEND = Backend(
    extra="embed-runtime",
    dialect=_dialect,
    precision=_precision,
    probe=_probe,
    build=_build,
    load=_load,
    max_batch_tokens=4096,
)
