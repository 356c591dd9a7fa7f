"""Nomic BERT v2: in every other layer, a few of several feed-forwards for each token.

All experts are computed, as one pair of matrices, and those a token did not choose get weight 0:
sparse dispatch needs operators that engines lack.
"""

from dataclasses import replace

import numpy as np

from embed_export.encoder import FeedForward, feed_forward
from embed_export.errors import ExportError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import Linear, activate, linear, read_linear
from embed_export.moe_original import nomic_moe_original
from embed_export.recipes import Original, Shape, refuse
from embed_export.recipes.nomic_bert import RECIPE as NOMIC
from embed_export.recipes.nomic_bert import nomic_layers, nomic_shape, with_usual_names
from embed_export.weights import Weights


def _is_mixture(config: JsonObject) -> bool:
    return config.find("moe_every_n_layers", int, 0) > 0


def _shape(config: JsonObject) -> Shape:
    refuse(config, "moe_normalize_expert_weights", False)
    refuse(config, "expert_choice_router", False)
    refuse(config, "num_shared_experts", 0)
    refuse(config, "ffn_div", 1)
    num_experts, top_k = config.require("num_experts", int), config.require("moe_top_k", int)
    if not 1 <= top_k <= num_experts:
        raise ExportError(
            f"{config.source}: moe_top_k={top_k} must be from 1 to num_experts={num_experts}"
        )
    refuse(config, "activation_function", "gelu")
    for key in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"):
        refuse(config, key, True)
    return nomic_shape(config)


def _write_feed_forward(
    graph: Graph, config: JsonObject, weights: Weights, hidden_states: Value, index: int
) -> Value:
    """Write one layer's: a mixture in the second of every `moe_every_n_layers` layers."""
    if index % config.require("moe_every_n_layers", int) == 1:
        return _write_mixture(graph, config, weights, hidden_states, f"encoder.layers.{index}.mlp")
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    name = f"encoder.layers.{index}.mlp"
    layers = FeedForward(
        up=read_linear(weights, f"{name}.fc1", width, inner),
        down=read_linear(weights, f"{name}.fc2", inner, width),
        activation="gelu",
    )
    return feed_forward(graph, hidden_states, layers)


def _write_mixture(
    graph: Graph, config: JsonObject, weights: Weights, hidden_states: Value, name: str
) -> Value:
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    num_experts = config.require("num_experts", int)
    rows = num_experts * inner
    up = Linear(
        name=f"{name}.experts.w1",
        out_features=rows,
        weight=lambda: weights.take(f"{name}.experts.mlp.w1", (rows, width)),
    )
    down = Linear(
        name=f"{name}.experts.w2",
        out_features=width,
        weight=lambda: weights.take(f"{name}.experts.mlp.w2", (rows, width)).T,
        bias=lambda: weights.take(f"{name}.experts.bias", (width,)),
    )
    shares = _write_router(graph, config, weights, hidden_states, f"{name}.router.layer.weight")
    inner_states = activate(graph, linear(graph, hidden_states, up), "gelu")
    # The second matrices side by side sum over experts, so each share is multiplied in before.
    axes = [0] if graph.packed else [0, 0]
    apart = graph.op("Reshape", [inner_states, graph.integers([*axes, num_experts, inner])])
    weighted = graph.op("Mul", [apart, graph.op("Unsqueeze", [shares, graph.integers([-1])])])
    together = graph.op("Reshape", [weighted, graph.integers([*axes, rows])])
    return linear(graph, together, down)


def _write_router(
    graph: Graph, config: JsonObject, weights: Weights, hidden_states: Value, name: str
) -> Value:
    """Write the share of each expert, a token tensor of `num_experts`; most are 0.

    In float32 in every precision: two nearly equal experts are a step, not a rounding error.
    """
    width, num_experts = config.require("hidden_size", int), config.require("num_experts", int)
    matrix = graph.stored(name, "fp32", lambda: weights.take(name, (num_experts, width)).T)
    scores = graph.op("MatMul", [graph.widen(hidden_states), matrix])
    shares = graph.op("Softmax", [scores], {"axis": -1})
    count = graph.integers([config.require("moe_top_k", int)])
    best, experts = graph.ops("TopK", [shares, count], {"axis": -1}, num_outputs=2)
    # One row for each choice, with its share in the column of its expert.
    columns = graph.table("experts", np.arange(num_experts, dtype=np.float32), "fp32")
    chosen = graph.op("Unsqueeze", [graph.cast(experts, "fp32"), graph.integers([-1])])
    is_chosen = graph.cast(graph.op("Equal", [chosen, columns]), "fp32")
    best = graph.op("Unsqueeze", [best, graph.integers([-1])])
    spread = graph.op("Mul", [is_chosen, best])
    summed = graph.op("ReduceSum", [spread, graph.integers([-2])], {"keepdims": 0})
    return graph.narrow(summed)


def _write_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    return nomic_layers(graph, config, weights, _write_feed_forward)


def _make_original(config: JsonObject, weights: Weights) -> Original:
    return nomic_moe_original(with_usual_names(config), weights)


RECIPE = replace(
    NOMIC,
    examples=("nomic-ai/nomic-embed-text-v2-moe",),
    matryoshka={"nomic-embed-text-v2-moe": (256,)},
    centers_cuts=False,
    shape=_shape,
    backbone=_write_backbone,
    model_type="nomic_bert",
    matches=_is_mixture,
    original=_make_original,
)
