"""BERT: word, position and segment embeddings, then post-norm encoder layers."""

from collections.abc import Callable

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
from embed_export.recipes import Recipe, Shape, even_heads, read_activation, refuse
from embed_export.weights import Weights
from embed_runtime.manifest import Positions
from embed_runtime.types import FloatArray


def bert_shape(config: JsonObject) -> Shape:
    """Read the sizes every model with BERT's config has; positions count from 0."""
    refuse(config, "position_embedding_type", "absolute")
    refuse(config, "is_decoder", False)
    refuse(config, "add_cross_attention", False)
    return Shape(
        hidden_size=config.require("hidden_size", int),
        num_layers=config.require("num_hidden_layers", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=config.require("max_position_embeddings", int),
        positions=Positions(),
    )


def bert_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write BERT: embeddings, norm, layers."""
    return bert_layers(graph, config, weights, embeddings(graph, config, weights))


def embeddings(
    graph: Graph,
    config: JsonObject,
    weights: Weights,
    *,
    also: Callable[[], FloatArray] | None = None,
) -> Value:
    """Write the sum of embeddings and its norm.

    Every token is of segment 0, so the segment's row is added to each position's beforehand, and
    so is the row that `also` gives.
    """
    width = config.require("hidden_size", int)
    sizes = {
        "word": config.require("vocab_size", int),
        "position": config.require("max_position_embeddings", int),
        "token_type": config.require("type_vocab_size", int),
    }

    def table(kind: str) -> FloatArray:
        return weights.take(f"embeddings.{kind}_embeddings.weight", (sizes[kind], width))

    def positions() -> FloatArray:
        rows = table("position")
        rows += table("token_type")[0]
        if also is not None:
            rows += also()
        return rows

    words = embed(graph, "embeddings.word", graph.input_ids, lambda: table("word"))
    places = embed(graph, "embeddings.position", graph.position_ids, positions)
    epsilon = config.find("layer_norm_eps", float, 1e-12)
    norm = read_norm(weights, "embeddings.LayerNorm", width, epsilon)
    return layer_norm(graph, graph.op("Add", [words, places]), norm)


def bert_layers(graph: Graph, config: JsonObject, weights: Weights, hidden_states: Value) -> Value:
    """Write the encoder layers under BERT's names."""
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    epsilon = config.find("layer_norm_eps", float, 1e-12)
    heads = even_heads(config)
    activation = read_activation(config, "hidden_act")
    for index in range(config.require("num_hidden_layers", int)):
        name = f"encoder.layer.{index}"
        block = Block(
            query=read_linear(weights, f"{name}.attention.self.query", width, width),
            key=read_linear(weights, f"{name}.attention.self.key", width, width),
            value=read_linear(weights, f"{name}.attention.self.value", width, width),
            attention_output=read_linear(weights, f"{name}.attention.output.dense", width, width),
            attention_norm=read_norm(weights, f"{name}.attention.output.LayerNorm", width, epsilon),
            up=read_linear(weights, f"{name}.intermediate.dense", width, inner),
            down=read_linear(weights, f"{name}.output.dense", inner, width),
            output_norm=read_norm(weights, f"{name}.output.LayerNorm", width, epsilon),
        )
        hidden_states = post_norm_block(graph, hidden_states, block, heads, activation=activation)
    return hidden_states


RECIPE = Recipe(
    # The last is vLLM's name for the second with sparse vectors.
    architectures=(
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertSpladeSparseEmbeddingModel",
    ),
    examples=(
        "sentence-transformers/all-MiniLM-L6-v2",
        "BAAI/bge-base-en-v1.5",
        "intfloat/e5-base-v2",
        "naver/splade-v3",
    ),
    shape=bert_shape,
    backbone=bert_backbone,
    prefixes=("bert.",),
    matryoshka={"snowflake-arctic-embed-m-v1.5": (256,)},
    masked_lm=MaskedLm(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        bias="cls.predictions.bias",
        activation=lambda config: read_activation(config, "hidden_act"),
        epsilon=lambda config: config.find("layer_norm_eps", float, 1e-12),
    ),
    unused=(r"pooler\..*", r"cls\..*", r"embeddings\.position_ids"),
)
