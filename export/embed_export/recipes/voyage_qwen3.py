"""Voyage's Qwen3: it looks both ways, and a linear layer gives each token its final width."""

from dataclasses import replace

from embed_export.decoder_config import both_ways, decoder_recipe
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import Linear, linear
from embed_export.recipes import Shape
from embed_export.recipes.qwen3 import read_qwen3
from embed_export.weights import Weights
from embed_runtime.types import FloatArray

_QWEN3 = decoder_recipe(
    read_qwen3,
    architectures=("VoyageQwen3BidirectionalEmbedModel",),
    examples=("voyageai/voyage-4-nano",),
    attention="both ways",
    complete=both_ways,
)


def voyage_shape(config: JsonObject) -> Shape:
    """Read the sizes; a token is as wide as the head makes it."""
    return replace(_QWEN3.shape(config), hidden_size=config.require("num_labels", int))


def voyage_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write Qwen3 and the head."""
    head = Linear(
        name="linear",
        out_features=config.require("num_labels", int),
        weight=lambda: voyage_head(config, weights),
    )
    return linear(graph, _QWEN3.backbone(graph, config, weights), head)


def voyage_head(config: JsonObject, weights: Weights) -> FloatArray:
    """Read the head, [num_labels, hidden_size] without a bias."""
    shape = (config.require("num_labels", int), config.require("hidden_size", int))
    return weights.take("linear.weight", shape)


RECIPE = replace(
    _QWEN3,
    model_type="qwen3",
    shape=voyage_shape,
    backbone=voyage_backbone,
    pooling="mean",
    matryoshka={"voyage-4-nano": (256, 512, 1024)},
    native_head=voyage_head,
)
