"""Jina Embeddings v3: XLM-RoBERTa with rotary positions, and an adapter for each task.

The graph keeps all adapters, and a request names the task whose it wants; one that names none gets
the base weights, as from the model's own code. `--task-adapter` merges one for good instead.
"""

import re
from collections.abc import Mapping

from embed_export.encoder import (
    Attention,
    FeedForward,
    add_and_norm,
    feed_forward,
    rotary_attention,
    scale_queries,
    word_embeddings,
)
from embed_export.encoder_adapters import SEGMENTS, STORED, WORDS, Adapters
from embed_export.errors import ExportError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import layer_norm, read_norm
from embed_export.recipes import TASK_ADAPTER, Recipe, Shape, even_heads, refuse
from embed_export.rope import Rope
from embed_export.rope_config import make_rope
from embed_export.weights import Weights
from embed_runtime.manifest import Positions
from embed_runtime.types import FloatArray

# RoBERTa's, whose positions start at 2; the config still counts them.
UNUSED_POSITIONS = 2


def _is_jina(config: JsonObject) -> bool:
    has_adapters = config.find_list("lora_adaptations", str) is not None
    return has_adapters or config.find("position_embedding_type", str) == "rotary"


def _shape(config: JsonObject) -> Shape:
    refuse(config, "position_embedding_type", "rotary")
    refuse(config, "hidden_act", "gelu")
    refuse(config, "is_decoder", False)
    refuse(config, "rope_scaling")
    _read_rope(config, even_heads(config).head_size)
    _find_task(config)
    return Shape(
        hidden_size=config.require("hidden_size", int),
        num_layers=config.require("num_hidden_layers", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=config.require("max_position_embeddings", int) - UNUSED_POSITIONS,
        positions=Positions(),
    )


def _backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write the model: embeddings, norm, layers with a norm behind each half."""
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    epsilon = config.find("layer_norm_eps", float, 1e-5)
    heads = even_heads(config)
    rope = _read_rope(config, heads.head_size)
    adapters = _read_adapters(config, weights)
    vocab_size = config.require("vocab_size", int)
    num_segments = config.require("type_vocab_size", int)
    words = word_embeddings(
        graph,
        adapters.table,
        vocab_size=vocab_size,
        width=width,
        num_segments=num_segments,
        change=adapters.words(vocab_size=vocab_size, width=width, num_segments=num_segments),
    )
    hidden_states = layer_norm(graph, words, read_norm(weights, "emb_ln", width, epsilon))
    for index in range(config.require("num_hidden_layers", int)):
        name = f"encoder.layers.{index}"
        attention = Attention(
            qkv=scale_queries(adapters.linear(f"{name}.mixer.Wqkv", width, 3 * width), heads),
            output=adapters.linear(f"{name}.mixer.out_proj", width, width),
            heads=heads,
            rope=rope,
        )
        mlp = FeedForward(
            up=adapters.linear(f"{name}.mlp.fc1", width, inner),
            down=adapters.linear(f"{name}.mlp.fc2", inner, width),
            activation="gelu",
        )
        attended = rotary_attention(graph, hidden_states, attention)
        norm = read_norm(weights, f"{name}.norm1", width, epsilon)
        hidden_states = add_and_norm(graph, attended, hidden_states, norm)
        outer = feed_forward(graph, hidden_states, mlp)
        norm = read_norm(weights, f"{name}.norm2", width, epsilon)
        hidden_states = add_and_norm(graph, outer, hidden_states, norm)
    return hidden_states


def _read_rope(config: JsonObject, head_size: int) -> Rope:
    theta = config.require("rotary_emb_base", float)
    return make_rope(config, None, head_size, name="rope", theta=theta)


def _find_tasks(config: JsonObject) -> tuple[str, ...]:
    return config.find_list("lora_adaptations", str) or ()


def _find_task(config: JsonObject) -> int | None:
    """Return the number of the adapter to merge.

    Raises:
        ExportError: The model has no such adapter.
    """
    task = config.find(TASK_ADAPTER, str)
    if task is None:
        return None
    tasks = _find_tasks(config)
    if task not in tasks:
        raise ExportError(
            f"--task-adapter={task} is unknown; this model's adapters: {', '.join(tasks) or 'none'}"
        )
    return tasks.index(task)


def _read_adapters(config: JsonObject, weights: Weights) -> Adapters:
    tasks = _find_tasks(config)
    rank = config.require("lora_rank", int) if tasks else 1
    if rank < 1:
        raise config.wrong("lora_rank", "1 or more")
    return Adapters(
        weights=weights,
        task=_find_task(config),
        num_tasks=len(tasks),
        rank=rank,
        scale=config.find("lora_alpha", float, 1.0) / rank,
    )


def _native_config(config: JsonObject) -> Mapping[str, object]:
    kept = {key: value for key, value in config.items() if key != "auto_map"}
    return {
        **kept,
        "model_type": "jina_embeddings_v3",
        "rope_theta": config.require("rotary_emb_base", float),
    }


def _native_weights(config: JsonObject, weights: Weights) -> Mapping[str, FloatArray]:
    """Merge every weight, under names without the adapters'."""
    adapters = _read_adapters(config, weights)
    width = config.require("hidden_size", int)
    inner = config.require("intermediate_size", int)
    tables = {
        f"{WORDS}.weight": config.require("vocab_size", int),
        f"{SEGMENTS}.weight": config.require("type_vocab_size", int),
    }
    matrices = {"mixer.Wqkv": (3 * width, width), "mixer.out_proj": (width, width)}
    matrices |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    merged = {name: adapters.table(name, (rows, width)) for name, rows in tables.items()}
    for index in range(config.require("num_hidden_layers", int)):
        for part, shape in matrices.items():
            name = f"encoder.layers.{index}.{part}"
            merged[f"{name}.weight"] = adapters.matrix(f"{name}.weight", shape)
            merged[f"{name}.bias"] = weights.take(f"{name}.bias", shape[:1])
        for norm in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                name = f"encoder.layers.{index}.{norm}.{kind}"
                merged[name] = weights.take(name, (width,))
    for kind in ("weight", "bias"):
        merged[f"emb_ln.{kind}"] = weights.take(f"emb_ln.{kind}", (width,))
    return merged


RECIPE = Recipe(
    architectures=("XLMRobertaModel", "XLMRobertaLoRA"),
    examples=("jinaai/jina-embeddings-v3",),
    shape=_shape,
    backbone=_backbone,
    longest="max_position_embeddings - 2",
    model_type="xlm-roberta",
    matches=_is_jina,
    pooling="mean",
    prefixes=("roberta.",),
    # Of the original that a certificate runs without a task, all adapters stay unread.
    unused=(r"pooler\..*", r"lm_head\..*", rf".*{re.escape(STORED)}\.0\.lora_[AB]"),
    native_config=_native_config,
    native_weights=_native_weights,
    find_adapters=_find_tasks,
    custom_modules=("custom_st.Transformer",),
)
