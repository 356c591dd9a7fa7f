"""DistilBERT: BERT without segments, under names of its own."""

from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import (
    Block,
    embed,
    layer_norm,
    post_norm_block,
    read_linear,
    read_norm,
)
from embed_export.masked_lm import MaskedLm
from embed_export.recipes import Recipe, Shape, even_heads, read_activation
from embed_export.weights import Weights
from embed_runtime.manifest import Positions

# Fixed in transformers (modeling_distilbert.py), not in the config.
EPSILON = 1e-12


def distilbert_shape(config: JsonObject) -> Shape:
    """Read the sizes; positions count from 0."""
    return Shape(
        hidden_size=config.require("dim", int),
        num_layers=config.require("n_layers", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=config.require("max_position_embeddings", int),
        positions=Positions(),
    )


def distilbert_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write DistilBERT: embeddings, norm, layers."""
    width, inner = config.require("dim", int), config.require("hidden_dim", int)
    shape = distilbert_shape(config)
    words = embed(
        graph,
        "embeddings.word",
        graph.input_ids,
        lambda: weights.take("embeddings.word_embeddings.weight", (shape.vocab_size, width)),
    )
    places = embed(
        graph,
        "embeddings.position",
        graph.position_ids,
        lambda: weights.take("embeddings.position_embeddings.weight", (shape.max_tokens, width)),
    )
    norm = read_norm(weights, "embeddings.LayerNorm", width, EPSILON)
    hidden_states = layer_norm(graph, graph.op("Add", [words, places]), norm)
    heads = even_heads(config, width="dim", heads="n_heads")
    activation = read_activation(config, "activation")
    for index in range(shape.num_layers):
        name = f"transformer.layer.{index}"
        block = Block(
            query=read_linear(weights, f"{name}.attention.q_lin", width, width),
            key=read_linear(weights, f"{name}.attention.k_lin", width, width),
            value=read_linear(weights, f"{name}.attention.v_lin", width, width),
            attention_output=read_linear(weights, f"{name}.attention.out_lin", width, width),
            attention_norm=read_norm(weights, f"{name}.sa_layer_norm", width, EPSILON),
            up=read_linear(weights, f"{name}.ffn.lin1", width, inner),
            down=read_linear(weights, f"{name}.ffn.lin2", inner, width),
            output_norm=read_norm(weights, f"{name}.output_layer_norm", width, EPSILON),
        )
        hidden_states = post_norm_block(graph, hidden_states, block, heads, activation=activation)
    return hidden_states


RECIPE = Recipe(
    architectures=("DistilBertModel", "DistilBertForMaskedLM"),
    examples=("sentence-transformers/msmarco-distilbert-base-v4",),
    shape=distilbert_shape,
    backbone=distilbert_backbone,
    prefixes=("distilbert.",),
    masked_lm=MaskedLm(
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        activation=lambda config: read_activation(config, "activation"),
        epsilon=lambda _: EPSILON,
    ),
    unused=(r"vocab_(transform|layer_norm|projector)\..*", r"embeddings\.position_ids"),
)
