"""The adapters of Jina Embeddings v3: read, and merged into the weights or kept for the graph.

A weight is stored as `<name>.parametrizations.weight.original` and beside it, for all tasks
stacked, the two thin matrices `.0.lora_A` and `.0.lora_B` of its change.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from embed_export.adapters import Change
from embed_export.errors import ExportError
from embed_export.layers import Linear
from embed_export.weights import Weights
from embed_runtime.types import FloatArray

STORED = ".parametrizations.weight"
WORDS = "embeddings.word_embeddings"
SEGMENTS = "embeddings.token_type_embeddings"

_Kind: TypeAlias = Literal["A", "B"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The adapters of one checkpoint.

    Attributes:
        weights: Its tensors.
        task: Number of the one to merge; None to merge none and keep all for the graph.
        num_tasks: How many there are; 0 where the weights are plain.
        rank: Width of the thin matrices.
        scale: Factor on a change.
    """

    weights: Weights
    task: int | None
    num_tasks: int
    rank: int
    scale: float

    def matrix(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Read a linear layer's `<name>.weight`, [out, in]; a merged task adds scale B A."""
        return self._read(name, shape, "B", "A")

    def table(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Read an embedding's `<name>.weight`, [rows, width]; a merged task adds scale A B."""
        return self._read(name, shape, "A", "B")

    def linear(self, name: str, in_features: int, out_features: int) -> Linear:
        """Find a linear layer; its tensors are read when a graph is written."""
        change = Change(
            num_adapters=self.num_tasks,
            rank=self.rank,
            down=lambda: np.concatenate(self._stack(name, "A", self.rank, in_features)),
            up=lambda: self._up(name, out_features),
        )
        return Linear(
            name=name,
            out_features=out_features,
            weight=lambda: self.matrix(f"{name}.weight", (out_features, in_features)),
            bias=lambda: self.weights.take(f"{name}.bias", (out_features,)),
            change=change if self._in_graph else None,
        )

    def words(self, *, vocab_size: int, width: int, num_segments: int) -> Change | None:
        """Find what is added to looked-up words.

        The first segment, which every text is, comes with them: its change, a vector for each
        task, is one more column of `up`, and ones in `down`.
        """
        if not self._in_graph:
            return None

        def down() -> FloatArray:
            rows = self._stack(WORDS, "A", vocab_size, self.rank)
            ones = np.ones((1, vocab_size), np.float32)
            return np.concatenate([part for table in rows for part in (table.T, ones)])

        def up() -> FloatArray:
            words = self._stack(WORDS, "B", self.rank, width)
            first = self._stack(SEGMENTS, "A", num_segments, self.rank)[:, :1]
            segments = first @ self._stack(SEGMENTS, "B", self.rank, width)
            both: FloatArray = np.concatenate([words, segments], axis=1).reshape(-1, width)
            return both.T * np.float32(self.scale)

        return Change(num_adapters=self.num_tasks, rank=self.rank + 1, down=down, up=up)

    def _up(self, layer: str, out_features: int) -> FloatArray:
        stacked = self._stack(layer, "B", out_features, self.rank)
        return np.hstack(list(stacked)) * np.float32(self.scale)

    @property
    def _in_graph(self) -> bool:
        return self.num_tasks > 0 and self.task is None

    def _read(self, name: str, shape: tuple[int, ...], left: _Kind, right: _Kind) -> FloatArray:
        if not self.num_tasks:
            return self.weights.take(name, shape)
        layer = name.removesuffix(".weight")
        if self.weights.has(name):
            raise ExportError(
                f"config.json lists adapters, but weight {name!r} has none; where they are merged"
                """ already, say so: --hf-overrides '{"lora_adaptations": null}'"""
            )
        weight = self.weights.take(f"{layer}{STORED}.original", shape)
        if self.task is not None:
            rows, width = shape
            tall = self._stack(layer, left, rows, self.rank)[self.task]
            wide = self._stack(layer, right, self.rank, width)[self.task]
            weight += self.scale * (tall @ wide)
        return weight

    def _stack(self, layer: str, kind: _Kind, rows: int, width: int) -> FloatArray:
        """[num_tasks, rows, width] float32: one thin matrix of every task."""
        name = f"{layer}{STORED}.0.lora_{kind}"
        return self.weights.take(name, (self.num_tasks, rows, width))
