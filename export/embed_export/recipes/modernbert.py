"""ModernBERT: norms in front, gated feed-forward, and layers that look only nearby.

Every third layer sees the whole text; the others see `local_attention` / 2 tokens to either side,
and rotate by another base.
"""

from embed_export.decoder_config import sliding_layers
from embed_export.encoder import (
    Attention,
    FeedForward,
    feed_forward,
    read_plain_norm,
    rotary_attention,
    scale_queries,
)
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import Norm, embed, layer_norm, read_linear, read_norm
from embed_export.masks import EVERYTHING, Window
from embed_export.recipes import Recipe, Shape, even_heads, read_activation
from embed_export.rope import Rope
from embed_export.rope_config import make_rope
from embed_export.weights import Weights
from embed_runtime.manifest import Positions

# What transformers assumes where the config is silent (configuration_modernbert.py, 5.23).
GLOBAL_THETA, LOCAL_THETA = 160_000.0, 10_000.0
GLOBAL_EVERY, LOCAL_ATTENTION = 3, 128


def modernbert_shape(config: JsonObject) -> Shape:
    """Read the sizes, and stop at settings the layers would stop at; positions count from 0."""
    read_activation(config, "hidden_activation")
    _read_ropes(config, even_heads(config).head_size)
    return Shape(
        hidden_size=config.require("hidden_size", int),
        num_layers=config.require("num_hidden_layers", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=config.require("max_position_embeddings", int),
        positions=Positions(),
    )


def modernbert_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write ModernBERT: embeddings, norm, layers, norm."""
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    epsilon = config.find("norm_eps", float, 1e-5)
    attention_bias = config.find("attention_bias", bool, default=False)
    mlp_bias = config.find("mlp_bias", bool, default=False)
    find_norm = read_norm if config.find("norm_bias", bool, default=False) else read_plain_norm
    activation = read_activation(config, "hidden_activation")
    heads = even_heads(config)
    full, sliding = _read_ropes(config, heads.head_size)
    reach = config.find("local_attention", int, LOCAL_ATTENTION) // 2
    nearby = Window(left=reach, right=reach)

    def norm(name: str) -> Norm:
        return find_norm(weights, name, width, epsilon)

    words = embed(
        graph,
        "embeddings.tok_embeddings",
        graph.input_ids,
        lambda: weights.take(
            "embeddings.tok_embeddings.weight", (config.require("vocab_size", int), width)
        ),
    )
    hidden_states = layer_norm(graph, words, norm("embeddings.norm"))
    every = config.find("global_attn_every_n_layers", int, GLOBAL_EVERY)
    for index, slides in enumerate(sliding_layers(config, lambda index: index % every != 0)):
        name = f"layers.{index}"
        qkv = read_linear(weights, f"{name}.attn.Wqkv", width, 3 * width, bias=attention_bias)
        attention = Attention(
            qkv=scale_queries(qkv, heads),
            output=read_linear(weights, f"{name}.attn.Wo", width, width, bias=attention_bias),
            heads=heads,
            rope=sliding if slides else full,
            window=nearby if slides else EVERYTHING,
        )
        # The first layer reads what the embeddings' norm has just normalized.
        normed = layer_norm(graph, hidden_states, norm(f"{name}.attn_norm")) if index else None
        attended = rotary_attention(graph, normed or hidden_states, attention)
        hidden_states = graph.op("Add", [hidden_states, attended])

        mlp = FeedForward(
            up=read_linear(weights, f"{name}.mlp.Wi", width, 2 * inner, bias=mlp_bias),
            down=read_linear(weights, f"{name}.mlp.Wo", inner, width, bias=mlp_bias),
            activation=activation,
            gate=0,
        )
        normed = layer_norm(graph, hidden_states, norm(f"{name}.mlp_norm"))
        hidden_states = graph.op("Add", [hidden_states, feed_forward(graph, normed, mlp)])
    return layer_norm(graph, hidden_states, norm("final_norm"))


def _read_ropes(config: JsonObject, head_size: int) -> tuple[Rope, Rope]:
    """Read the rotations of global and of local layers, as old or as new releases write them."""
    if config.find_object("rope_scaling") is not None:
        raise config.unsupported("rope_scaling", "null")
    settings = config.find_object("rope_parameters")
    full, sliding = (
        make_rope(
            config,
            settings.find_object(kind) if settings else None,
            head_size,
            name=f"rope.{name}",
            theta=config.find(f"{name}_rope_theta", float, theta),
        )
        for kind, name, theta in (
            ("full_attention", "global", GLOBAL_THETA),
            ("sliding_attention", "local", LOCAL_THETA),
        )
    )
    return full, sliding


RECIPE = Recipe(
    architectures=("ModernBertModel", "ModernBertForMaskedLM"),
    examples=(
        "Alibaba-NLP/gte-modernbert-base",
        "nomic-ai/modernbert-embed-base",
        "lightonai/modernbert-embed-large",
    ),
    shape=modernbert_shape,
    backbone=modernbert_backbone,
    attention="both ways, in two of three layers only nearby",
    prefixes=("model.",),
    unused=(r"head\..*", r"decoder\..*", r"classifier\..*"),
)
