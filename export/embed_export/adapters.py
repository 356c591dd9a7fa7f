"""Adapters that stay beside the weights (LoRA, Hu et al. 2021, arXiv:2106.09685), all in one graph.

A token of adapter i gets W x + B_i A_i x. All A stand one below the other, all B side by side, so
two thin products serve every adapter at once; between them everything but a token's own rows is
multiplied by zero. A token without an adapter gets W x + 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

from embed_export.graph import Graph, MakeArray, Value
from embed_runtime.types import FloatArray, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What all adapters add to one matrix.

    Attributes:
        num_adapters: How many there are.
        rank: Rows of each in the middle.
        down: Gives [num_adapters * rank, in_features] float32, all A.
        up: Gives [out_features, num_adapters * rank] float32, all B, scaled.
    """

    num_adapters: int
    rank: int
    down: Callable[[], FloatArray]
    up: Callable[[], FloatArray]


def change_of_product(graph: Graph, values: Value, name: str, change: Change) -> Value:
    """Give what is added to a token tensor's product with the matrix."""
    down = _thin(graph, f"{name}.adapters.down", lambda: change.down().T)
    return _own_product(graph, graph.op("MatMul", [values, down]), name, change)


def change_of_rows(graph: Graph, ids: Value, name: str, change: Change) -> Value:
    """Give what is added to looked-up rows of the matrix; here the rows of `down` stand upright."""
    down = graph.stored(f"{name}.adapters.down", _precision(graph), lambda: change.down().T)
    rows = graph.op("Gather", [down, ids])
    if _precision(graph) != graph.compute:
        rows = graph.cast(rows, graph.compute)
    return _own_product(graph, rows, name, change)


def _own_product(graph: Graph, inner: Value, name: str, change: Change) -> Value:
    own = graph.once(f"own adapter, rank {change.rank}", lambda: _is_own(graph, change))
    up = _thin(graph, f"{name}.adapters.up", lambda: change.up().T)
    return graph.op("MatMul", [graph.op("Mul", [inner, own]), up])


def _is_own(graph: Graph, change: Change) -> Value:
    """[T, num_adapters * rank], `padded` [B, 1, ...]: 1 in the columns of a token's adapter."""
    owners = [number for number in range(change.num_adapters) for _ in range(change.rank)]
    axes = graph.integers([1] if graph.packed else [1, 2])
    ids = graph.op("Unsqueeze", [graph.adapter_ids, axes])
    return graph.cast(graph.op("Equal", [ids, graph.integers(owners)]), graph.compute)


def _thin(graph: Graph, name: str, make: MakeArray) -> Value:
    value = graph.stored(name, _precision(graph), make)
    same = _precision(graph) == graph.compute
    return value if same else graph.cast_once(value, graph.compute)


def _precision(graph: Graph) -> Precision:
    """They are too small to be worth rounding to int8."""
    return "fp32" if graph.storage == "int8" else graph.storage
