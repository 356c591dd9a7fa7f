"""Which tokens see each other: one additive bias on the attention scores for each kind of layer."""

from dataclasses import dataclass

from embed_export.graph import MASKED_SCORE, Graph, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How far a token sees; None is without limit.

    Attributes:
        left: Tokens back.
        right: Tokens ahead; 0 is causal.
    """

    left: int | None = None
    right: int | None = None


EVERYTHING = Window()
CAUSAL = Window(right=0)


def attention_bias(graph: Graph, window: Window) -> Value:
    """Return the bias of a kind of layer, made once in each graph.

    Returns:
        [B or 1, 1, S or 1, S] in the compute precision: 0 for what is seen, `MASKED_SCORE` or less
        for padding and for what is out of sight.
    """
    window = Window(left=_within(graph, window.left), right=_within(graph, window.right))
    if window == EVERYTHING:
        return graph.mask_bias
    return graph.once(f"{window} bias", lambda: _window_bias(graph, window))


def _within(graph: Graph, reach: int | None) -> int | None:
    """Drop a limit that no text is long enough to meet."""
    return None if reach is None or reach >= graph.max_tokens - 1 else reach


def _window_bias(graph: Graph, window: Window) -> Value:
    """Compare positions in the graph: a constant would be S x S large for the longest S."""
    length = graph.op("Gather", [graph.op("Shape", [graph.mask]), graph.integers(1)])
    places = graph.op("Range", [graph.integers(0), length, graph.integers(1)])
    keys = graph.op("Unsqueeze", [places, graph.integers([0, 1, 2])])
    queries = graph.op("Unsqueeze", [places, graph.integers([0, 1, 3])])
    hidden = [
        graph.op("Less", [_shift(graph, nearer, reach), farther])
        for nearer, reach, farther in (
            (queries, window.right, keys),
            (keys, window.left, queries),
        )
        if reach is not None
    ]
    out_of_sight = hidden[0] if len(hidden) == 1 else graph.op("Or", hidden)
    bias = graph.op("Where", [out_of_sight, graph.number(MASKED_SCORE), graph.number(0.0)])
    if graph.packed and window.right == 0:
        # Padding stands behind every token of its row, where none of them looks.
        return bias
    return graph.op("Add", [bias, graph.mask_bias])


def _shift(graph: Graph, places: Value, reach: int) -> Value:
    return graph.op("Add", [places, graph.integers(reach)]) if reach else places
