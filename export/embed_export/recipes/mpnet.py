"""MPNet: BERT without segments, with a learned bias for each distance between two tokens."""

import math
from dataclasses import replace

import numpy as np

from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import (
    Block,
    Heads,
    embed,
    layer_norm,
    post_norm_block,
    read_linear,
    read_norm,
)
from embed_export.recipes import Recipe, Shape, even_heads, read_activation
from embed_export.recipes.bert import bert_shape
from embed_export.recipes.roberta import RECIPE as ROBERTA
from embed_export.weights import Weights
from embed_runtime.manifest import Positions
from embed_runtime.types import FloatArray, IntArray

# transformers (modeling_mpnet.py, MPNetEmbeddings and MPNetEncoder) fixes these three; the config
# only gives the number of buckets its table has.
PADDING_ID = 1
NUM_BUCKETS = 32
MAX_DISTANCE = 128


def mpnet_shape(config: JsonObject) -> Shape:
    """Read the sizes; positions count from after the padding token's, as in RoBERTa."""
    shape = bert_shape(config)
    first = PADDING_ID + 1
    return replace(
        shape,
        max_tokens=shape.max_tokens - first,
        positions=Positions(offset=first, skip_id=PADDING_ID),
    )


def mpnet_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write MPNet: embeddings, norm, one distance bias, layers."""
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    epsilon = config.find("layer_norm_eps", float, 1e-12)
    rows = {
        "word": config.require("vocab_size", int),
        "position": config.require("max_position_embeddings", int),
    }

    def table(kind: str) -> FloatArray:
        return weights.take(f"embeddings.{kind}_embeddings.weight", (rows[kind], width))

    words = embed(graph, "embeddings.word", graph.input_ids, lambda: table("word"))
    places = embed(graph, "embeddings.position", graph.position_ids, lambda: table("position"))
    norm = read_norm(weights, "embeddings.LayerNorm", width, epsilon)
    hidden_states = layer_norm(graph, graph.op("Add", [words, places]), norm)
    heads = even_heads(config)
    activation = read_activation(config, "hidden_act")
    bias = _position_bias(graph, config, weights, heads)
    for index in range(config.require("num_hidden_layers", int)):
        name = f"encoder.layer.{index}"
        block = Block(
            query=read_linear(weights, f"{name}.attention.attn.q", width, width),
            key=read_linear(weights, f"{name}.attention.attn.k", width, width),
            value=read_linear(weights, f"{name}.attention.attn.v", width, width),
            attention_output=read_linear(weights, f"{name}.attention.attn.o", width, width),
            attention_norm=read_norm(weights, f"{name}.attention.LayerNorm", width, epsilon),
            up=read_linear(weights, f"{name}.intermediate.dense", width, inner),
            down=read_linear(weights, f"{name}.output.dense", inner, width),
            output_norm=read_norm(weights, f"{name}.output.LayerNorm", width, epsilon),
        )
        hidden_states = post_norm_block(
            graph, hidden_states, block, heads, activation=activation, position_bias=bias
        )
    return hidden_states


def distance_buckets(max_tokens: int) -> IntArray:
    """Return the bucket of each distance -(max_tokens-1)..max_tokens-1 from a query to a key.

    The float32 logarithm is transformers' own (MPNetEncoder.relative_position_bucket): in float64
    some distances fall into the neighbouring bucket.
    """
    distance = np.arange(-(max_tokens - 1), max_tokens, dtype=np.int32)
    half = NUM_BUCKETS // 2
    exact = half // 2
    behind = np.abs(distance)
    ratio = np.log(np.maximum(behind, 1).astype(np.float32) / np.float32(exact))
    far = exact + (ratio / np.float32(math.log(MAX_DISTANCE / exact)) * (half - exact)).astype(
        np.int32
    )
    bucket = np.where(behind < exact, behind, np.minimum(far, half - 1))
    return (bucket + np.where(distance > 0, half, 0)).astype(np.int32)


def _position_bias(graph: Graph, config: JsonObject, weights: Weights, heads: Heads) -> Value:
    """Write the [1, num_heads, S, S] bias, from a table of distances made here."""
    num_buckets = config.find("relative_attention_num_buckets", int, NUM_BUCKETS)
    max_tokens = mpnet_shape(config).max_tokens

    def table() -> FloatArray:
        buckets = weights.take(
            "encoder.relative_attention_bias.weight", (num_buckets, heads.num_heads)
        )
        return np.ascontiguousarray(buckets[distance_buckets(max_tokens)].T)

    name = "encoder.relative_attention_bias"
    by_distance = graph.vector(name, table)
    length = graph.op("Gather", [graph.op("Shape", [graph.mask]), graph.integers(1)])
    places = graph.op("Range", [graph.integers(0), length, graph.integers(1)])
    keys = graph.op("Unsqueeze", [places, graph.integers([0])])
    queries = graph.op("Unsqueeze", [places, graph.integers([1])])
    distance = graph.op("Sub", [keys, queries])
    index = graph.op("Add", [distance, graph.integers(max_tokens - 1)])
    bias = graph.op("Gather", [by_distance, index], {"axis": 1})
    return graph.op("Unsqueeze", [bias, graph.integers([0])])


RECIPE = Recipe(
    architectures=("MPNetModel", "MPNetForMaskedLM"),
    examples=("sentence-transformers/all-mpnet-base-v2",),
    shape=mpnet_shape,
    backbone=mpnet_backbone,
    longest="max_position_embeddings - 2",
    prefixes=("mpnet.",),
    masked_lm=ROBERTA.masked_lm,
    unused=(r"pooler\..*", r"lm_head\..*", r"embeddings\.position_ids"),
)
