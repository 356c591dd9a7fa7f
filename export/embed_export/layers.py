"""The layers models are made of: embedding, linear, norm, attention, feed-forward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from embed_export import int8
from embed_export.adapters import Change, change_of_product
from embed_export.graph import Graph, Value
from embed_export.weights import Weights
from embed_runtime.types import FloatArray

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "relu", "tanh", "sigmoid", "silu", "identity"]

# What an activation function's output is never below, of those that stay near zero on one side.
_LOWEST: dict[Activation, float] = {
    "gelu": -0.1701,
    "gelu_tanh": -0.1701,
    "silu": -0.2785,
    "relu": 0.0,
    "sigmoid": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer as checkpoints store it.

    Attributes:
        name: Name of its tensors in the graph.
        out_features: Width of its output.
        weight: Gives [out_features, in_features] float32.
        bias: Gives [out_features] float32; None without one.
        change: What adapters add to the weight; None without any.
    """

    name: str
    out_features: int
    weight: Callable[[], FloatArray]
    bias: Callable[[], FloatArray] | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A layer norm: [H] weight and bias, and the epsilon under the root."""

    name: str
    weight: Callable[[], FloatArray]
    bias: Callable[[], FloatArray]
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RmsNorm:
    """A root-mean-square norm: [N] weight, and the epsilon under the root."""

    name: str
    weight: Callable[[], FloatArray]
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The weights of one encoder layer: attention and feed-forward, a norm after each."""

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """How a width is split into attention heads.

    Attributes:
        num_heads: Heads of queries.
        head_size: Width of one.
        num_kv_heads: Heads of keys and of values, each for as many queries' heads in a row; None
            for one each.
    """

    num_heads: int
    head_size: int
    num_kv_heads: int | None = None

    @property
    def width(self) -> int:
        """Width of queries, and of the attention's output."""
        return self.num_heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Width of keys, and of values."""
        return (self.num_kv_heads or self.num_heads) * self.head_size

    @property
    def num_sharing(self) -> int:
        """Heads of queries that share one of keys and values."""
        return self.num_heads // (self.num_kv_heads or self.num_heads)


def read_linear(
    weights: Weights, name: str, in_features: int, out_features: int, *, bias: bool = True
) -> Linear:
    """Find a linear layer in a checkpoint; its tensors are read when a graph is written."""
    return Linear(
        name=name,
        out_features=out_features,
        weight=lambda: weights.take(f"{name}.weight", (out_features, in_features)),
        bias=(lambda: weights.take(f"{name}.bias", (out_features,))) if bias else None,
    )


def read_norm(weights: Weights, name: str, width: int, epsilon: float) -> Norm:
    """Find a layer norm in a checkpoint."""
    return Norm(
        name=name,
        weight=lambda: weights.take(f"{name}.weight", (width,)),
        bias=lambda: weights.take(f"{name}.bias", (width,)),
        epsilon=epsilon,
    )


def merge(name: str, parts: Sequence[Linear]) -> Linear:
    """Put linear layers that read the same input side by side: one matrix product for all."""
    assert all(part.change is None for part in parts)
    biases = [part.bias for part in parts]
    assert all(bias is None for bias in biases) or all(bias is not None for bias in biases)
    return Linear(
        name=name,
        out_features=sum(part.out_features for part in parts),
        weight=lambda: np.concatenate([part.weight() for part in parts], axis=0),
        bias=(
            None
            if biases[0] is None
            else lambda: np.concatenate([bias() for bias in biases if bias is not None])
        ),
    )


def scale(layer: Linear, factor: float) -> Linear:
    """Multiply a linear layer's output by a factor, inside its weights."""
    assert layer.change is None
    bias = layer.bias
    return Linear(
        name=layer.name,
        out_features=layer.out_features,
        weight=lambda: layer.weight() * np.float32(factor),
        bias=None if bias is None else lambda: bias() * np.float32(factor),
    )


def embed(graph: Graph, name: str, ids: Value, table: Callable[[], FloatArray]) -> Value:
    """Look rows of a table up, in the compute precision."""
    if graph.storage == "int8":
        return int8.embed_rows(graph, name, ids, table)
    # Converted after the look-up: a few rows instead of the whole table.
    rows = graph.op("Gather", [graph.stored(name, graph.storage, table), ids])
    return rows if graph.storage == graph.compute else graph.cast(rows, graph.compute)


def embedded_rows(
    graph: Graph, name: str, table: Callable[[], FloatArray], start: int, stop: int
) -> Value:
    """Return some rows of a table that `embed` looks up, in the compute precision."""
    if graph.storage == "int8":
        return int8.some_rows(graph, name, table, start, stop)
    rows = graph.slice_rows(graph.stored(name, graph.storage, table), start, stop)
    return rows if graph.storage == graph.compute else graph.cast(rows, graph.compute)


def linear(graph: Graph, values: Value, layer: Linear, *, behind: Activation = "identity") -> Value:
    """Apply a linear layer to the last axis; `behind` is the function that made the values."""
    name = f"{layer.name}.weight"
    if graph.storage == "int8":
        product = int8.product(graph, values, name, layer.weight, _LOWEST.get(behind))
    else:
        matrix = graph.matrix(name, lambda: layer.weight().T)
        product = graph.op("MatMul", [values, matrix])
    if layer.change is not None:
        change = change_of_product(graph, values, layer.name, layer.change)
        product = graph.op("Add", [product, change])
    if layer.bias is None:
        return product
    return graph.op("Add", [product, graph.vector(f"{layer.name}.bias", layer.bias)])


def layer_norm(graph: Graph, values: Value, norm: Norm) -> Value:
    """Normalize the last axis; the statistics are float32 in every precision (stash_type 1)."""
    weight = graph.vector(f"{norm.name}.weight", norm.weight)
    bias = graph.vector(f"{norm.name}.bias", norm.bias)
    return graph.op(
        "LayerNormalization", [values, weight, bias], {"axis": -1, "epsilon": norm.epsilon}
    )


def rms_norm(graph: Graph, values: Value, norm: RmsNorm) -> Value:
    """Divide the last axis by its root mean square, in float32 in every precision."""
    wide = graph.widen(values)
    squares = graph.op("Pow", [wide, graph.number(2.0, "fp32")])
    mean = graph.op("ReduceMean", [squares, graph.integers([-1])])
    root = graph.op("Sqrt", [graph.op("Add", [mean, graph.number(norm.epsilon, "fp32")])])
    weight = graph.stored(f"{norm.name}.weight", "fp32", norm.weight)
    return graph.narrow(graph.op("Mul", [graph.op("Div", [wide, root]), weight]))


def activate(graph: Graph, values: Value, activation: Activation) -> Value:
    """Apply an activation function; `gelu` is the exact one, with erf."""
    match activation:
        case "identity":
            return values
        case "silu":
            return graph.op("Mul", [values, graph.op("Sigmoid", [values])])
        case "gelu":
            return graph.op("Gelu", [values])
        case "gelu_tanh":
            return graph.op("Gelu", [values], {"approximate": "tanh"})
        case "relu" | "tanh" | "sigmoid":
            return graph.op(activation.capitalize(), [values])


def attention(
    graph: Graph, qkv: Value, heads: Heads, *, position_bias: Value | None = None
) -> Value:
    """Attend within each row, both ways.

    Args:
        graph: Where to.
        qkv: Queries, keys and values side by side, 3 * width; queries are scaled already.
        heads: How the width is split.
        position_bias: [1, num_heads, S, S], added to the scores.

    Returns:
        A token tensor of `heads.width`.
    """
    split = graph.ops("Split", [graph.pad(qkv)], {"axis": -1, "num_outputs": 3}, num_outputs=3)
    shape = graph.integers([0, 0, heads.num_heads, heads.head_size])
    queries, keys, values = (graph.op("Reshape", [part, shape]) for part in split)
    bias = graph.mask_bias
    if position_bias is not None:
        bias = graph.once(
            f"{position_bias} masked", lambda: graph.op("Add", [position_bias, graph.mask_bias])
        )
    return attend(graph, queries, keys, values, heads, bias=bias)


def attend(
    graph: Graph,
    queries: Value,
    keys: Value,
    values: Value,
    heads: Heads,
    *,
    bias: Value,
    softcap: float | None = None,
) -> Value:
    """Attend within each row.

    Args:
        graph: Where to.
        queries: [B, S, num_heads, head_size], scaled already; with `softcap`, divided by it too.
        keys: [B, S, num_kv_heads, head_size].
        values: The same.
        heads: How the width is split.
        bias: Added to the scores, [B or 1, num_heads or 1, S or 1, S].
        softcap: Scores are squeezed into -softcap..softcap before the bias is added.

    Returns:
        A token tensor of `heads.width`.
    """
    if heads.num_sharing > 1:
        # TensorRT fuses attention behind this, and not behind products that share keys themselves.
        owners = graph.integers([head // heads.num_sharing for head in range(heads.num_heads)])
        keys = graph.op("Gather", [keys, owners], {"axis": 2})
        values = graph.op("Gather", [values, owners], {"axis": 2})
    queries = graph.op("Transpose", [queries], {"perm": [0, 2, 1, 3]})
    keys = graph.op("Transpose", [keys], {"perm": [0, 2, 3, 1]})
    values = graph.op("Transpose", [values], {"perm": [0, 2, 1, 3]})
    scores = graph.op("MatMul", [queries, keys])
    if softcap is not None:
        scores = graph.op("Mul", [graph.op("Tanh", [scores]), graph.number(softcap)])
    weights = graph.op("Softmax", [graph.op("Add", [scores, bias])], {"axis": -1})
    mixed = graph.op("MatMul", [weights, values])
    rows = graph.op("Transpose", [mixed], {"perm": [0, 2, 1, 3]})
    rows = graph.op("Reshape", [rows, graph.integers([0, 0, heads.width])])
    return graph.unpad(rows, heads.width)


def post_norm_block(
    graph: Graph,
    hidden_states: Value,
    block: Block,
    heads: Heads,
    *,
    activation: Activation,
    position_bias: Value | None = None,
) -> Value:
    """Apply one layer of the original transformer encoder (BERT and its kin)."""
    query = scale(block.query, heads.head_size**-0.5)
    qkv = linear(graph, hidden_states, merge(f"{query.name}.qkv", [query, block.key, block.value]))
    attended = attention(graph, qkv, heads, position_bias=position_bias)
    attended = linear(graph, attended, block.attention_output)
    hidden_states = layer_norm(
        graph, graph.op("Add", [attended, hidden_states]), block.attention_norm
    )
    inner = activate(graph, linear(graph, hidden_states, block.up), activation)
    outer = linear(graph, inner, block.down, behind=activation)
    return layer_norm(graph, graph.op("Add", [outer, hidden_states]), block.output_norm)
