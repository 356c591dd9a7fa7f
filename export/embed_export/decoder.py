"""Decoders without their language head: layers of rotary attention and gated feed-forward.

One writer for Llama and its kin; a `Decoder` says what a family does in its own way. Names of
weights are those the whole kin shares, without the prefix of a model with a head.
"""

from dataclasses import dataclass

import numpy as np

from embed_export.graph import Graph, Value
from embed_export.layers import (
    Activation,
    Heads,
    Linear,
    RmsNorm,
    activate,
    attend,
    embed,
    linear,
    merge,
    read_linear,
    rms_norm,
    scale,
)
from embed_export.masks import Window, attention_bias
from embed_export.rope import Rope, rotate
from embed_export.weights import Weights
from embed_runtime.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What can differ from one layer to the next."""

    window: Window
    rope: Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One decoder, as its config describes it.

    Attributes:
        hidden_size: Width of a token.
        inner_size: Width inside the feed-forward.
        vocab_size: Rows of the embedding table.
        max_tokens: Longest text its positions are for.
        heads: How queries, keys and values are split.
        layers: One entry each, in order.
        activation: What the gate of the feed-forward goes through.
        epsilon: Of every norm.
        query_scale: Factor on queries, or on scores, which is the same.
        qkv_bias: Whether queries, keys and values have biases.
        output_bias: Whether the attention's output has one.
        mlp_bias: Whether the three layers of the feed-forward have.
        qk_norm: Whether each head of queries and keys is normalized.
        sandwich_norms: Whether attention and feed-forward have a norm behind them, too.
        unit_offset: Whether weights of norms are stored less one.
        softcap: Scores are squeezed into -softcap..softcap.
        embedding_scale: Factor on embeddings.
    """

    hidden_size: int
    inner_size: int
    vocab_size: int
    max_tokens: int
    heads: Heads
    layers: tuple[Layer, ...]
    activation: Activation
    epsilon: float
    query_scale: float
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    unit_offset: bool = False
    softcap: float | None = None
    embedding_scale: float | None = None


def write_decoder(graph: Graph, decoder: Decoder, weights: Weights) -> Value:
    """Write a decoder; returns its last hidden state, normalized: a token tensor."""
    writer = _Writer(graph, decoder, weights)
    hidden_states = writer.embeddings()
    for index, layer in enumerate(decoder.layers):
        hidden_states = writer.layer(hidden_states, f"layers.{index}", layer)
    return writer.norm(hidden_states, "norm")


class _Writer:
    """Writes the parts of one decoder."""

    def __init__(self, graph: Graph, decoder: Decoder, weights: Weights) -> None:
        self._graph = graph
        self._decoder = decoder
        self._weights = weights

    def embeddings(self) -> Value:
        graph, decoder = self._graph, self._decoder
        shape = (decoder.vocab_size, decoder.hidden_size)
        rows = embed(
            graph,
            "embed_tokens.weight",
            graph.input_ids,
            lambda: self._weights.take("embed_tokens.weight", shape),
        )
        if decoder.embedding_scale is None:
            return rows
        # In float32: rounded to 16 bit, the factor would be off by up to 0.2 percent.
        factor = graph.number(decoder.embedding_scale, "fp32")
        return graph.narrow(graph.op("Mul", [graph.widen(rows), factor]))

    def layer(self, hidden_states: Value, name: str, layer: Layer) -> Value:
        graph, is_sandwich = self._graph, self._decoder.sandwich_norms
        after = "post_attention_layernorm"
        before = "pre_feedforward_layernorm" if is_sandwich else after

        normed = self.norm(hidden_states, f"{name}.input_layernorm")
        attended = self._attention(normed, f"{name}.self_attn", layer)
        if is_sandwich:
            attended = self.norm(attended, f"{name}.{after}")
        hidden_states = graph.op("Add", [hidden_states, attended])

        normed = self.norm(hidden_states, f"{name}.{before}")
        outer = self._feed_forward(normed, f"{name}.mlp")
        if is_sandwich:
            outer = self.norm(outer, f"{name}.post_feedforward_layernorm")
        return graph.op("Add", [hidden_states, outer])

    def norm(self, values: Value, name: str) -> Value:
        decoder = self._decoder
        norm = RmsNorm(
            name=name,
            weight=lambda: self._norm_weight(name, decoder.hidden_size),
            epsilon=decoder.epsilon,
        )
        return rms_norm(self._graph, values, norm)

    def _attention(self, values: Value, name: str, layer: Layer) -> Value:
        graph, decoder, heads = self._graph, self._decoder, self._decoder.heads
        query = self._linear(f"{name}.q_proj", heads.width, bias=decoder.qkv_bias)
        if not decoder.qk_norm:
            query = scale(query, self._query_factor)
        key = self._linear(f"{name}.k_proj", heads.kv_width, bias=decoder.qkv_bias)
        value = self._linear(f"{name}.v_proj", heads.kv_width, bias=decoder.qkv_bias)
        qkv = linear(graph, values, merge(f"{name}.qkv_proj", [query, key, value]))

        # Queries and keys get the same treatment, so they stay side by side until the end of it.
        widths = graph.integers([heads.width + heads.kv_width, heads.kv_width])
        both, mixed = graph.ops("Split", [qkv, widths], {"axis": -1}, num_outputs=2)
        rows = [0] if graph.packed else [0, 0]
        apart = graph.integers([*rows, -1, heads.head_size])
        both, mixed = graph.op("Reshape", [both, apart]), graph.op("Reshape", [mixed, apart])
        if decoder.qk_norm:
            both = rms_norm(graph, both, self._qk_norm(name))
        both = rotate(graph, both, layer.rope)
        counts = graph.integers([heads.num_heads, heads.num_heads // heads.num_sharing])
        queries, keys = graph.ops("Split", [both, counts], {"axis": -2}, num_outputs=2)

        attended = attend(
            graph,
            graph.pad(queries),
            graph.pad(keys),
            graph.pad(mixed),
            heads,
            bias=attention_bias(graph, layer.window),
            softcap=decoder.softcap,
        )
        output = read_linear(
            self._weights,
            f"{name}.o_proj",
            heads.width,
            decoder.hidden_size,
            bias=decoder.output_bias,
        )
        return linear(graph, attended, output)

    @property
    def _query_factor(self) -> float:
        return self._decoder.query_scale / (self._decoder.softcap or 1)

    def _qk_norm(self, name: str) -> RmsNorm:
        """Join the norms of queries and of keys, a row of weights for each head."""
        decoder, heads = self._decoder, self._decoder.heads

        def weight() -> FloatArray:
            query = self._norm_weight(f"{name}.q_norm", heads.head_size)
            key = self._norm_weight(f"{name}.k_norm", heads.head_size)
            rows = [query * np.float32(self._query_factor)] * heads.num_heads
            return np.stack([*rows, *[key] * (heads.num_heads // heads.num_sharing)])

        return RmsNorm(name=f"{name}.qk_norm", weight=weight, epsilon=decoder.epsilon)

    def _feed_forward(self, values: Value, name: str) -> Value:
        graph, decoder = self._graph, self._decoder
        gate = self._linear(f"{name}.gate_proj", decoder.inner_size, bias=decoder.mlp_bias)
        up = self._linear(f"{name}.up_proj", decoder.inner_size, bias=decoder.mlp_bias)
        both = linear(graph, values, merge(f"{name}.gate_up_proj", [gate, up]))
        halves = graph.ops("Split", [both], {"axis": -1, "num_outputs": 2}, num_outputs=2)
        gated = activate(graph, halves[0], decoder.activation)
        down = read_linear(
            self._weights,
            f"{name}.down_proj",
            decoder.inner_size,
            decoder.hidden_size,
            bias=decoder.mlp_bias,
        )
        return linear(graph, graph.op("Mul", [gated, halves[1]]), down)

    def _linear(self, name: str, out_features: int, *, bias: bool) -> Linear:
        return read_linear(self._weights, name, self._decoder.hidden_size, out_features, bias=bias)

    def _norm_weight(self, name: str, width: int) -> FloatArray:
        weight = self._weights.take(f"{name}.weight", (width,))
        return weight + 1 if self._decoder.unit_offset else weight
