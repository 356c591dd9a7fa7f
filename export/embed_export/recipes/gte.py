"""GTE: BERT with rotary positions and a gated feed-forward; arctic-embed-m-v2.0 is one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from embed_export.encoder import (
    Attention,
    FeedForward,
    add_and_norm,
    feed_forward,
    rotary_attention,
    scale_queries,
    word_embeddings,
)
from embed_export.errors import ExportError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import layer_norm, read_linear, read_norm
from embed_export.recipes import Recipe, Shape, even_heads, read_activation, refuse
from embed_export.rope import Rope
from embed_export.rope_config import make_rope
from embed_export.weights import Weights
from embed_runtime.manifest import Positions

# What transformers assumes where the config is silent (configuration_gte.py, 5.23).
DEFAULT_THETA = 160_000.0


def gte_shape(config: JsonObject) -> Shape:
    """Read the sizes, and stop at settings that no published model has; positions count from 0."""
    refuse(config, "position_embedding_type", "rope")
    refuse(config, "layer_norm_type", "layer_norm")
    refuse(config, "pack_qkv", True)
    refuse(config, "logn_attention_scale", False)
    refuse(config, "logn_attention_clip1", False)
    read_activation(config, "hidden_act")
    read_gte_rope(config, even_heads(config).head_size)
    return Shape(
        hidden_size=config.require("hidden_size", int),
        num_layers=config.require("num_hidden_layers", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=config.require("max_position_embeddings", int),
        positions=Positions(),
    )


def gte_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write GTE: embeddings, norm, layers with a norm behind each half."""
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    epsilon = config.find("layer_norm_eps", float, 1e-12)
    activation = read_activation(config, "hidden_act")
    heads = even_heads(config)
    rope = read_gte_rope(config, heads.head_size)
    words = word_embeddings(
        graph,
        weights.take,
        vocab_size=config.require("vocab_size", int),
        width=width,
        num_segments=config.require("type_vocab_size", int),
    )
    norm = read_norm(weights, "embeddings.LayerNorm", width, epsilon)
    hidden_states = layer_norm(graph, words, norm)
    for index in range(config.require("num_hidden_layers", int)):
        name = f"encoder.layer.{index}"
        qkv = read_linear(weights, f"{name}.attention.qkv_proj", width, 3 * width)
        attention = Attention(
            qkv=scale_queries(qkv, heads),
            output=read_linear(weights, f"{name}.attention.o_proj", width, width),
            heads=heads,
            rope=rope,
        )
        mlp = FeedForward(
            up=read_linear(weights, f"{name}.mlp.up_gate_proj", width, 2 * inner, bias=False),
            down=read_linear(weights, f"{name}.mlp.down_proj", inner, width),
            activation=activation,
            gate=1,
        )
        attended = rotary_attention(graph, hidden_states, attention)
        norm = read_norm(weights, f"{name}.attn_ln", width, epsilon)
        hidden_states = add_and_norm(graph, attended, hidden_states, norm)
        outer = feed_forward(graph, hidden_states, mlp)
        norm = read_norm(weights, f"{name}.mlp_ln", width, epsilon)
        hidden_states = add_and_norm(graph, outer, hidden_states, norm)
    return hidden_states


def read_gte_rope(config: JsonObject, head_size: int) -> Rope:
    """Read the rotation; `ntk` is GTE's own way to stretch one.

    With base theta, factor f and head size d, feature i turns by (theta f)^(-2i/d) / f^(2/d).

    Raises:
        UnsupportedModelError: It is stretched in a way that cannot be exported.
        ExportError: Settings are missing or contradict each other.
    """
    settings = _rope_settings(config)
    theta = config.find("rope_theta", float, DEFAULT_THETA)
    if settings is None or not _is_ntk(settings):
        return make_rope(config, settings, head_size, name="rope", theta=theta)
    theta, factor = _read_ntk(config, settings)
    plain = make_rope(config, None, head_size, name="rope", theta=theta * factor)
    slower = np.float32(factor ** (2 / head_size))
    return replace(plain, frequencies=plain.frequencies / slower)


def _rope_settings(config: JsonObject) -> JsonObject | None:
    settings, older = config.find_object("rope_parameters"), config.find_object("rope_scaling")
    if settings and older:
        raise config.wrong("rope_scaling", "null where rope_parameters is given")
    return settings or older


def _is_ntk(settings: JsonObject) -> bool:
    return "ntk" in (settings.find("rope_type", str), settings.find("type", str))


def _read_ntk(config: JsonObject, settings: JsonObject) -> tuple[float, float]:
    """Return the base and the factor."""
    for key in settings:
        if key not in {"type", "rope_type", "factor", "rope_theta"} and settings[key] is not None:
            raise settings.unsupported(key, "null for rope type 'ntk'")
    factor = settings.require("factor", float)
    theta = settings.find("rope_theta", float, config.find("rope_theta", float, DEFAULT_THETA))
    if factor < 1 or theta <= 0:
        raise ExportError(f"{settings.source}: factor={factor:g} must be 1 or more")
    return theta, factor


def native_gte_config(config: JsonObject) -> Mapping[str, object]:
    """Say GTE's stretched rotation in words that transformers knows.

    (theta f)^(-2i/d) / f^(2/d) is a rotation of base theta f, stretched linearly by f^(2/d).
    """
    kept = {key: value for key, value in config.items() if key != "auto_map"}
    settings = _rope_settings(config)
    if settings is not None and _is_ntk(settings):
        theta, factor = _read_ntk(config, settings)
        kept = {key: value for key, value in kept.items() if key not in _ROPE_KEYS}
        kept["rope_parameters"] = {
            "rope_type": "linear",
            "rope_theta": theta * factor,
            "factor": factor ** (2 / even_heads(config).head_size),
        }
    return {**kept, "model_type": "gte"}


_ROPE_KEYS = {"rope_theta", "rope_scaling", "rope_parameters"}

RECIPE = Recipe(
    architectures=("GteModel",),
    examples=("Snowflake/snowflake-arctic-embed-m-v2.0",),
    matryoshka={"snowflake-arctic-embed-m-v2.0": (256,)},
    shape=gte_shape,
    backbone=gte_backbone,
    prefixes=("new.",),
    # The multilingual model's gives one value; one that gives more is for another task.
    weighing_layer="classifier",
    unused=(
        r"pooler\..*",
        r"lm_head\..*",
        r"classifier\..*",
        r"embeddings\.position_ids",
        r".*rotary_emb\.inv_freq",
    ),
    native_config=native_gte_config,
)
