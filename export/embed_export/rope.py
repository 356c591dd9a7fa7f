"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in a graph.

Cosines and sines are tables in the weight file, looked up by position. Their angles are rounded to
float32 as the original's are, on every engine; what an engine's own cosine makes of an angle of
30,000, maybe in 16 bit, is anyone's guess.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from embed_export.graph import Graph, Value
from embed_runtime.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """The rotation of one kind of layer.

    Attributes:
        name: Name of its tables in the graph.
        frequencies: [head_size / 2] float32, radians from one position to the next.
        magnitude: Factor on every cosine and sine.
        max_tokens: Longest text these frequencies are for; None for any.
    """

    name: str
    frequencies: FloatArray = field(repr=False, compare=False)
    magnitude: float = 1.0
    max_tokens: int | None = None


def rotate(graph: Graph, heads: Value, rope: Rope) -> Value:
    """Rotate queries or keys by their positions: feature i together with i + head_size / 2.

    Args:
        graph: Where to.
        heads: A token tensor with heads apart, [T, heads, head_size] or [B, S, heads, head_size].
        rope: The rotation.
    """
    cos, sin = _rows(graph, rope, "cos"), _rows(graph, rope, "sin")
    first, second = graph.ops("Split", [heads], {"axis": -1, "num_outputs": 2}, num_outputs=2)
    rotated = [
        graph.op("Sub", [graph.op("Mul", [first, cos]), graph.op("Mul", [second, sin])]),
        graph.op("Add", [graph.op("Mul", [second, cos]), graph.op("Mul", [first, sin])]),
    ]
    return graph.op("Concat", rotated, {"axis": -1})


def _rows(graph: Graph, rope: Rope, kind: Literal["cos", "sin"]) -> Value:
    """Return [T, 1, head_size / 2] or [B, S, 1, head_size / 2], looked up once in each graph."""

    def table() -> FloatArray:
        positions = np.arange(graph.max_tokens, dtype=np.float32)
        angles = np.outer(positions, rope.frequencies).astype(np.float64)
        values = np.cos(angles) if kind == "cos" else np.sin(angles)
        return (values * rope.magnitude).astype(np.float32)

    def rows() -> Value:
        stored = graph.stored(f"{rope.name}.{kind}", "fp32", table)
        found = graph.op("Gather", [stored, graph.position_ids])
        return graph.narrow(graph.op("Unsqueeze", [found, graph.integers([-2])]))

    return graph.once(f"{rope.name}.{kind} of tokens", rows)
