"""The parts of encoders with rotary positions: attention, gated feed-forward, residuals.

ModernBERT, Nomic BERT, GTE and Jina's XLM-RoBERTa differ in where their norms stand, how wide they
look and what their weights are called; their recipes say so, with the parts below.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from embed_export.adapters import Change, change_of_rows
from embed_export.graph import Graph, Value
from embed_export.layers import (
    Activation,
    Heads,
    Linear,
    Norm,
    activate,
    attend,
    embed,
    layer_norm,
    linear,
    read_norm,
)
from embed_export.masks import EVERYTHING, Window, attention_bias
from embed_export.rope import Rope, rotate
from embed_export.weights import Weights
from embed_runtime.types import FloatArray

# Reads a tensor by name and shape.
Take = Callable[[str, tuple[int, ...]], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Rotary attention, one layer's.

    Attributes:
        qkv: Queries, keys and values side by side; queries are scaled, as `scale_queries` does.
        output: What their mixture goes through.
        heads: How the width is split.
        rope: How queries and keys are rotated.
        window: How far a token sees.
    """

    qkv: Linear
    output: Linear
    heads: Heads
    rope: Rope
    window: Window = EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """Two linear layers around an activation; gated ones have a third beside the first.

    Attributes:
        up: The first layer; in a gated one both halves, side by side.
        down: The last layer.
        activation: What stands between.
        gate: Which half of `up` goes through the activation, 0 or 1, and is then multiplied by the
            other; None without a gate.
    """

    up: Linear
    down: Linear
    activation: Activation
    gate: int | None = None


def scale_queries(qkv: Linear, heads: Heads) -> Linear:
    """Divide queries by the root of the head size, inside the weights that make them."""

    def scaled(array: FloatArray) -> FloatArray:
        array[: heads.width] *= heads.head_size**-0.5
        return array

    bias, change = qkv.bias, qkv.change
    return Linear(
        name=qkv.name,
        out_features=qkv.out_features,
        weight=lambda: scaled(qkv.weight()),
        bias=None if bias is None else lambda: scaled(bias()),
        change=None if change is None else replace(change, up=lambda: scaled(change.up())),
    )


def word_embeddings(
    graph: Graph,
    take: Take,
    *,
    vocab_size: int,
    width: int,
    num_segments: int,
    change: Change | None = None,
) -> Value:
    """Look words up; the first segment, which every text is, is in the table already.

    Args:
        graph: Where to.
        take: Reads a tensor.
        vocab_size: Rows of the table of words.
        width: Of both tables.
        num_segments: Rows of the table of segments; 0 without one.
        change: What adapters add.
    """

    def table() -> FloatArray:
        rows = take("embeddings.word_embeddings.weight", (vocab_size, width))
        if num_segments:
            rows += take("embeddings.token_type_embeddings.weight", (num_segments, width))[0]
        return rows

    words = embed(graph, "embeddings.word", graph.input_ids, table)
    if change is None:
        return words
    added = change_of_rows(graph, graph.input_ids, "embeddings.word", change)
    return graph.op("Add", [words, added])


def read_plain_norm(weights: Weights, name: str, width: int, epsilon: float) -> Norm:
    """Find a layer norm without a bias."""
    norm = read_norm(weights, name, width, epsilon)
    return Norm(
        name=name,
        weight=norm.weight,
        # Zeros cost nothing; not every engine knows the operator without them.
        bias=lambda: norm.weight() * 0,
        epsilon=epsilon,
    )


def rotary_attention(graph: Graph, values: Value, layer: Attention) -> Value:
    """Attend within each row; returns a token tensor."""
    heads = layer.heads
    rows = [0] if graph.packed else [0, 0]
    apart = graph.integers([*rows, 3 * heads.num_heads, heads.head_size])
    qkv = graph.op("Reshape", [linear(graph, values, layer.qkv), apart])
    # Queries and keys get the same treatment, so they stay side by side until the end of it.
    counts = graph.integers([2 * heads.num_heads, heads.num_heads])
    both, mixed = graph.ops("Split", [qkv, counts], {"axis": -2}, num_outputs=2)
    both = rotate(graph, both, layer.rope)
    queries, keys = graph.ops("Split", [both], {"axis": -2, "num_outputs": 2}, num_outputs=2)
    attended = attend(
        graph,
        graph.pad(queries),
        graph.pad(keys),
        graph.pad(mixed),
        heads,
        bias=attention_bias(graph, layer.window),
    )
    return linear(graph, attended, layer.output)


def feed_forward(graph: Graph, values: Value, layers: FeedForward) -> Value:
    """Apply a feed-forward to each token."""
    inner = linear(graph, values, layers.up)
    if layers.gate is None:
        return linear(
            graph,
            activate(graph, inner, layers.activation),
            layers.down,
            behind=layers.activation,
        )
    halves = graph.ops("Split", [inner], {"axis": -1, "num_outputs": 2}, num_outputs=2)
    gate = activate(graph, halves[layers.gate], layers.activation)
    return linear(graph, graph.op("Mul", [gate, halves[1 - layers.gate]]), layers.down)


def add_and_norm(graph: Graph, values: Value, hidden_states: Value, norm: Norm) -> Value:
    """Add what a part made of the hidden states to them, and normalize the sum."""
    return layer_norm(graph, graph.op("Add", [values, hidden_states]), norm)
