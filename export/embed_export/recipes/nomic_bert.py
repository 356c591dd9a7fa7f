"""Nomic BERT: BERT with rotary positions, a gated feed-forward and no biases.

Its config.json has GPT-2's names for the sizes.
"""

from collections.abc import Callable, Mapping

from embed_export.encoder import (
    Attention,
    FeedForward,
    add_and_norm,
    feed_forward,
    rotary_attention,
    scale_queries,
    word_embeddings,
)
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import layer_norm, merge, read_linear, read_norm
from embed_export.recipes import Recipe, Shape, even_heads, refuse
from embed_export.rope import Rope
from embed_export.rope_config import make_rope
from embed_export.weights import Weights
from embed_runtime.manifest import Positions

# The published name of a size, and transformers'.
_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
DEFAULT_THETA = 1000.0
PROMPTS = {
    name: f"{name}: "
    for name in ("search_query", "search_document", "clustering", "classification")
}

# Writes the feed-forward of the layer with an index, from tokens to tokens.
WriteFeedForward = Callable[[Graph, JsonObject, Weights, Value, int], Value]


def with_usual_names(config: JsonObject) -> JsonObject:
    """Give sizes the names other models have; what the repository itself calls them counts."""
    renamed = {
        _NAMES[key]: value for key, value in config.items() if key in _NAMES and value is not None
    }
    return JsonObject({**config, **renamed}, source=config.source)


def nomic_shape(published: JsonObject) -> Shape:
    """Read the sizes, and stop at settings that no published model has; positions count from 0."""
    refuse(published, "prenorm", False)
    refuse(published, "parallel_block", False)
    refuse(published, "use_rms_norm", False)
    refuse(published, "causal", False)
    refuse(published, "rotary_emb_interleaved", False)
    refuse(published, "rotary_emb_fraction", 1)
    refuse(published, "rotary_emb_scale_base")
    refuse(published, "rope_scaling")
    refuse(published, "scale_attn_by_inverse_layer_idx", False)
    refuse(published, "scale_attn_weights", True)
    config = with_usual_names(published)
    _read_rope(config, even_heads(config).head_size)
    return Shape(
        hidden_size=config.require("hidden_size", int),
        num_layers=config.require("num_hidden_layers", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=_max_tokens(config),
        positions=Positions(),
    )


def _max_tokens(config: JsonObject) -> int:
    """Stop where the rotation was trained to.

    Beyond it, `rotary_scaling_factor` stretches the rotation by the longest text of a batch, so
    that a text's vector depends on its neighbours; up to it, it changes nothing.
    """
    trained = config.find("max_trained_positions", int)
    if trained is None and config.find("rotary_scaling_factor", float) is not None:
        raise config.unsupported("rotary_scaling_factor", "null without max_trained_positions")
    positions = config.require("max_position_embeddings", int)
    return positions if trained is None else min(positions, trained)


def nomic_layers(
    graph: Graph, published: JsonObject, weights: Weights, write_feed_forward: WriteFeedForward
) -> Value:
    """Write Nomic BERT around the feed-forward given: embeddings, norm, layers."""
    config = with_usual_names(published)
    width = config.require("hidden_size", int)
    epsilon = config.find("layer_norm_eps", float, 1e-12)
    has_bias = config.find("qkv_proj_bias", bool, default=False)
    heads = even_heads(config)
    rope = _read_rope(config, heads.head_size)
    words = word_embeddings(
        graph,
        weights.take,
        vocab_size=config.require("vocab_size", int),
        width=width,
        num_segments=config.require("type_vocab_size", int),
    )
    hidden_states = layer_norm(graph, words, read_norm(weights, "emb_ln", width, epsilon))
    for index in range(config.require("num_hidden_layers", int)):
        name = f"encoder.layers.{index}"
        qkv = read_linear(weights, f"{name}.attn.Wqkv", width, 3 * width, bias=has_bias)
        attention = Attention(
            qkv=scale_queries(qkv, heads),
            output=read_linear(weights, f"{name}.attn.out_proj", width, width, bias=has_bias),
            heads=heads,
            rope=rope,
        )
        attended = rotary_attention(graph, hidden_states, attention)
        norm = read_norm(weights, f"{name}.norm1", width, epsilon)
        hidden_states = add_and_norm(graph, attended, hidden_states, norm)
        outer = write_feed_forward(graph, config, weights, hidden_states, index)
        norm = read_norm(weights, f"{name}.norm2", width, epsilon)
        hidden_states = add_and_norm(graph, outer, hidden_states, norm)
    return hidden_states


def _read_rope(config: JsonObject, head_size: int) -> Rope:
    settings = config.find_object("rope_parameters")
    theta = config.find("rope_theta", float, DEFAULT_THETA)
    return make_rope(config, settings, head_size, name="rope", theta=theta)


def _shape(config: JsonObject) -> Shape:
    refuse(config, "activation_function", "swiglu")
    refuse(config, "hidden_act", "silu")
    for key in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"):
        refuse(config, key, False)
    return nomic_shape(config)


def _write_gated(
    graph: Graph, config: JsonObject, weights: Weights, hidden_states: Value, index: int
) -> Value:
    """Write fc2(silu(fc12(x)) * fc11(x))."""
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    name = f"encoder.layers.{index}.mlp"
    halves = [
        read_linear(weights, f"{name}.{half}", width, inner, bias=False)
        for half in ("fc12", "fc11")
    ]
    layers = FeedForward(
        up=merge(f"{name}.fc1", halves),
        down=read_linear(weights, f"{name}.fc2", inner, width, bias=False),
        activation="silu",
        gate=0,
    )
    return feed_forward(graph, hidden_states, layers)


def _native_config(published: JsonObject) -> Mapping[str, object]:
    """Give transformers' class the names it reads; it ignores the published ones."""
    config = with_usual_names(published)
    dropped = {"auto_map", "activation_function", *_NAMES}
    kept = {key: value for key, value in config.items() if key not in dropped}
    return {**kept, "hidden_act": "silu"}


RECIPE = Recipe(
    architectures=("NomicBertModel", "NomicBertForPreTraining", "NomicBertForMaskedLM"),
    examples=(
        "nomic-ai/nomic-embed-text-v1",
        "nomic-ai/nomic-embed-text-v1.5",
        "Snowflake/snowflake-arctic-embed-m-long",
    ),
    shape=_shape,
    backbone=lambda graph, config, weights: nomic_layers(graph, config, weights, _write_gated),
    longest="n_positions, at most max_trained_positions",
    pooling="mean",
    prompts=PROMPTS,
    # Of this family only v1.5 was trained to be cut, after a layer norm.
    matryoshka={"nomic-embed-text-v1.5": (64, 128, 256, 512)},
    centers_cuts=True,
    prefixes=("bert.",),
    unused=(r"pooler\..*", r"cls\..*", r".*rotary_emb\.inv_freq"),
    native_config=_native_config,
)
