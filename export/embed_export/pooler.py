"""Token vectors to one vector: pooling, dense heads and normalization, all in float32.

The formulas are Sentence-Transformers' (sentence_transformer/modules/pooling.py, 6.2), whose names
for the modes we keep.
"""

from collections.abc import Sequence

from embed_export.graph import Graph, Value
from embed_export.layers import activate
from embed_export.modules import DenseHead
from embed_runtime.manifest import Pooling, PoolingMode
from embed_runtime.types import FloatArray

# The smallest divisors torch's clamp (pooling.py) and normalize (functional.py) allow.
SMALLEST_COUNT = 1e-9
SMALLEST_NORM = 1e-12
# Below every real activation, and still a float32.
LOWEST = -3e38


def write_outputs(
    graph: Graph,
    hidden_states: Value,
    *,
    hidden_size: int,
    pooling: Pooling,
    heads: Sequence[DenseHead],
    normalize: bool,
) -> None:
    """End the graph with `pooled` and `embedding`."""
    hidden_states = graph.widen(hidden_states)
    pooled = _Pooler(graph, hidden_states, hidden_size, pooling).pool()
    width = hidden_size * len(pooling.modes)
    for index, head in enumerate(heads):
        pooled = _dense(graph, pooled, head, f"head.{index}")
        width = head.spec.out_features
    graph.output("pooled", pooled, ["B", width])

    embedding = _normalize(graph, pooled) if normalize else pooled
    graph.output("embedding", embedding, ["B", width])


class _Pooler:
    """Writes the pooling modes of one graph, sharing what they have in common."""

    def __init__(
        self, graph: Graph, hidden_states: Value, hidden_size: int, pooling: Pooling
    ) -> None:
        self._graph = graph
        self._hidden_states = hidden_states
        self._hidden_size = hidden_size
        self._modes = pooling.modes
        self._mask = graph.mask if pooling.include_prompt else graph.pool_mask

    def pool(self) -> Value:
        """Return [B, hidden_size * modes]."""
        parts = [self._mode(mode) for mode in self._modes]
        return parts[0] if len(parts) == 1 else self._graph.op("Concat", parts, {"axis": 1})

    def _mode(self, mode: PoolingMode) -> Value:
        graph = self._graph
        match mode:
            case "cls":
                return self._token(self._first())
            case "lasttoken":
                return self._token(self._last())
            case "max":
                hidden = graph.op("Sub", [graph.number(1.0, "fp32"), self._column(self._mask)])
                floor = graph.op("Mul", [hidden, graph.number(LOWEST, "fp32")])
                kept = graph.op("Add", [self._rows(), floor])
                return graph.op("ReduceMax", [kept, graph.integers([1])], {"keepdims": 0})
            case "mean":
                return graph.op("Div", [self._sum(), self._count()])
            case "mean_sqrt_len_tokens":
                return graph.op("Div", [self._sum(), graph.op("Sqrt", [self._count()])])
            case "weightedmean":
                steps = graph.once("steps", self._steps)
                weights = self._column(graph.op("Mul", [self._mask, steps]))
                return graph.op("Div", [self._total(weights), self._divisor(weights)])

    def _rows(self) -> Value:
        return self._graph.once("pooled rows", lambda: self._graph.pad(self._hidden_states))

    def _column(self, mask: Value) -> Value:
        return self._graph.op("Unsqueeze", [mask, self._graph.integers([2])])

    def _sum(self) -> Value:
        return self._graph.once("pooled sum", lambda: self._total(self._column(self._mask)))

    def _count(self) -> Value:
        return self._graph.once("pooled count", lambda: self._divisor(self._column(self._mask)))

    def _total(self, weights: Value) -> Value:
        graph = self._graph
        weighted = graph.op("Mul", [self._rows(), weights])
        return graph.op("ReduceSum", [weighted, graph.integers([1])], {"keepdims": 0})

    def _divisor(self, weights: Value) -> Value:
        graph = self._graph
        count = graph.op("ReduceSum", [weights, graph.integers([1])], {"keepdims": 0})
        return graph.op("Max", [count, graph.number(SMALLEST_COUNT, "fp32")])

    def _steps(self) -> Value:
        """Return [1, S]: 1, 2, 3 and so on."""
        graph = self._graph
        length = graph.op("Gather", [graph.op("Shape", [self._mask]), graph.integers(1)])
        end = graph.op("Add", [length, graph.integers(1)])
        steps = graph.op("Range", [graph.integers(1), end, graph.integers(1)])
        return graph.op("Unsqueeze", [graph.cast(steps, "fp32"), graph.integers([0])])

    def _first(self) -> Value:
        """Return [B, 1]: the slot of the first token that is pooled."""
        # The mask is 0 or 1, and ArgMax takes the first of equals.
        return self._graph.op("ArgMax", [self._mask], {"axis": 1, "keepdims": 1})

    def _last(self) -> Value:
        """Return [B, 1]: the slot of the last token that is pooled."""
        steps = self._graph.once("steps", self._steps)
        reached = self._graph.op("Mul", [self._mask, steps])
        return self._graph.op("ArgMax", [reached], {"axis": 1, "keepdims": 1})

    def _token(self, slot: Value) -> Value:
        """Return the vector in one slot of each row."""
        graph = self._graph
        if graph.packed:
            row = graph.op("GatherElements", [graph.pad_index, slot], {"axis": 1})
            row = graph.op("Squeeze", [row, graph.integers([1])])
            return graph.op("Gather", [self._hidden_states, row])
        return graph.op("GatherND", [self._hidden_states, slot], {"batch_dims": 1})


def _dense(graph: Graph, values: Value, head: DenseHead, name: str) -> Value:
    def bias() -> FloatArray:
        array = head.read()[1]
        assert array is not None
        return array

    matrix = graph.stored(f"{name}.weight", "fp32", lambda: head.read()[0].T)
    values = graph.op("MatMul", [values, matrix])
    if head.spec.bias:
        values = graph.op("Add", [values, graph.stored(f"{name}.bias", "fp32", bias)])
    return activate(graph, values, head.spec.activation)


def _normalize(graph: Graph, values: Value) -> Value:
    norm = graph.op("ReduceL2", [values, graph.integers([1])], {"keepdims": 1})
    return graph.op("Div", [values, graph.op("Max", [norm, graph.number(SMALLEST_NORM, "fp32")])])
