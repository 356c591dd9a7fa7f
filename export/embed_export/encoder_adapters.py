"""Weights with the adapter (LoRA, Hu et al. 2021, arXiv:2106.09685) of one task in them.

Jina Embeddings v3 stores a weight as `<name>.parametrizations.weight.original` and beside it, for
all tasks stacked, the two thin matrices `.0.lora_A` and `.0.lora_B` of its change.
"""

from dataclasses import dataclass
from typing import Literal

from embed_export.layers import Linear
from embed_export.weights import Weights
from embed_runtime.types import FloatArray

STORED = ".parametrizations.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The adapters of one checkpoint.

    Attributes:
        weights: Its tensors.
        task: Number of the one to merge; None for none.
        num_tasks: How many there are.
        rank: Width of the thin matrices.
        scale: Factor on a change.
    """

    weights: Weights
    task: int | None
    num_tasks: int
    rank: int
    scale: float

    def matrix(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Read a linear layer's `<name>.weight`, [out, in]: W + scale B A."""
        return self._merged(name, shape, "B", "A")

    def table(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Read an embedding's `<name>.weight`, [rows, width]: W + scale A B."""
        return self._merged(name, shape, "A", "B")

    def linear(self, name: str, in_features: int, out_features: int) -> Linear:
        """Find a linear layer; its tensors are read when a graph is written."""
        return Linear(
            name=name,
            out_features=out_features,
            weight=lambda: self.matrix(f"{name}.weight", (out_features, in_features)),
            bias=lambda: self.weights.take(f"{name}.bias", (out_features,)),
        )

    def _merged(
        self, name: str, shape: tuple[int, ...], left: Literal["A", "B"], right: Literal["A", "B"]
    ) -> FloatArray:
        stored = name.removesuffix(".weight") + STORED
        if not self.weights.has(f"{stored}.original"):
            return self.weights.take(name, shape)
        weight = self.weights.take(f"{stored}.original", shape)
        if self.task is not None:
            rows, width = shape
            tall = self._thin(f"{stored}.0.lora_{left}", rows, self.rank)
            wide = self._thin(f"{stored}.0.lora_{right}", self.rank, width)
            weight += self.scale * (tall @ wide)
        return weight

    def _thin(self, name: str, rows: int, width: int) -> FloatArray:
        matrix: FloatArray = self.weights.take(name, (self.num_tasks, rows, width))[self.task]
        return matrix
