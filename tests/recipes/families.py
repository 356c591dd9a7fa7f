"""Decoders as the hub publishes them: their settings, and random weights under their names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Settings = dict[str, Any]

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, POSITIONS = 32, 64, 2, 4, 2, 128


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is published.

    Attributes:
        config: Its config.json, but for the vocabulary's size.
        tokenizer: Which of the tiny tokenizers it has.
        prefix: What its names start with.
        has_lm_head: Whether the language head lies beside the backbone.
        qkv_bias: Whether queries, keys and values have biases.
        output_bias: Whether the attention's output has one.
        mlp_bias: Whether the feed-forward has.
        qk_norm: Whether queries and keys have norms.
        sandwich: Whether there are four norms a layer, their weights stored less one.
        head: Width of a linear layer beside the backbone.
        native: What transformers' own class needs changed in the config; None removes a key.
    """

    config: Mapping[str, object]
    tokenizer: str
    prefix: str = ""
    has_lm_head: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich: bool = False
    head: int | None = None
    native: Mapping[str, object] = field(default_factory=dict[str, object])


_SIZES: dict[str, object] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": INNER,
    "hidden_act": "silu",
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_LLAMA3: dict[str, object] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_QWEN: dict[str, object] = {
    **_SIZES,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "sliding_window": 32768,
    "max_window_layers": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GEMMA: dict[str, object] = {
    **_SIZES,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 24,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}

FAMILIES = {
    "llama": Family(
        config={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **_SIZES,
            "rope_scaling": _LLAMA3,
            "pretraining_tp": 1,
        },
        tokenizer="llama",
        prefix="model.",
        has_lm_head=True,
    ),
    "llama-biases": Family(
        config={
            "architectures": ["LlamaModel"],
            "model_type": "llama",
            **_SIZES,
            "num_key_value_heads": HEADS,
            "attention_bias": True,
            "mlp_bias": True,
        },
        tokenizer="llama",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
    "mistral": Family(
        config={
            "architectures": ["MistralModel"],
            "model_type": "mistral",
            **_SIZES,
            "sliding_window": 8,
        },
        tokenizer="llama",
    ),
    "gritlm": Family(
        config={
            "architectures": ["GritLM"],
            "model_type": "mistral",
            "auto_map": {"AutoModel": "modeling_gritlm7b.MistralModel"},
            **_SIZES,
            "sliding_window": 8,
        },
        tokenizer="llama",
        prefix="model.",
        has_lm_head=True,
        native={"is_causal": False, "sliding_window": None},
    ),
    "llama-bidirec": Family(
        config={
            "architectures": ["LlamaBidirectionalModel"],
            "model_type": "llama_bidirec",
            "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
            **_SIZES,
            "rope_scaling": _LLAMA3,
            "pooling": "avg",
            "temperature": 0.02,
        },
        tokenizer="llama",
        native={"model_type": "llama", "is_causal": False},
    ),
    "qwen2": Family(
        config={"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **_QWEN},
        tokenizer="qwen",
        prefix="model.",
        has_lm_head=True,
        qkv_bias=True,
    ),
    "qwen2-both-ways": Family(
        config={
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"},
            **_QWEN,
            "is_causal": False,
        },
        tokenizer="qwen",
        prefix="model.",
        has_lm_head=True,
        qkv_bias=True,
    ),
    "qwen2-sliding": Family(
        config={
            "architectures": ["Qwen2Model"],
            "model_type": "qwen2",
            **_QWEN,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
        tokenizer="qwen",
        qkv_bias=True,
    ),
    "qwen2-sliding-both-ways": Family(
        config={
            "architectures": ["Qwen2Model"],
            "model_type": "qwen2",
            **_QWEN,
            "use_sliding_window": True,
            "sliding_window": 5,
            "is_causal": False,
        },
        tokenizer="qwen",
        qkv_bias=True,
    ),
    "qwen3": Family(
        config={
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **_QWEN,
            "head_dim": 16,
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
        tokenizer="qwen-eos",
        qk_norm=True,
    ),
    "voyage-qwen3": Family(
        config={
            "architectures": ["VoyageQwen3BidirectionalEmbedModel"],
            "model_type": "qwen3",
            "auto_map": {"AutoModel": "modeling_voyage.VoyageQwen3BidirectionalEmbedModel"},
            **_QWEN,
            "head_dim": 16,
            "attention_bias": False,
            "use_bidirectional_attention": True,
            "num_labels": 48,
        },
        tokenizer="qwen-eos",
        prefix="model.",
        qk_norm=True,
        head=48,
        native={"is_causal": False, "num_labels": None},
    ),
    "gemma2": Family(
        config={
            "architectures": ["Gemma2Model"],
            "model_type": "gemma2",
            **_GEMMA,
            "sliding_window": 6,
            # Low enough for the tiny model's scores to feel it.
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 30.0,
            "cache_implementation": "hybrid",
        },
        tokenizer="gemma",
        sandwich=True,
    ),
    "gemma3-text": Family(
        config={
            "architectures": ["Gemma3TextModel"],
            "model_type": "gemma3_text",
            **_GEMMA,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "layer_types": ["sliding_attention", "full_attention"],
            "_sliding_window_pattern": 2,
            "sliding_window": 12,
            "use_bidirectional_attention": True,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        tokenizer="gemma",
        sandwich=True,
        qk_norm=True,
    ),
    "gemma3-causal": Family(
        config={
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            **{key: value for key, value in _GEMMA.items() if key != "rope_theta"},
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "sliding_window_pattern": 2,
            "sliding_window": 6,
        },
        tokenizer="gemma",
        prefix="model.",
        sandwich=True,
        qk_norm=True,
    ),
}


def make_tensors(family: Family, config: Settings, seed: int) -> dict[str, Array]:
    """Make random tensors under their published names, far from their usual start."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}

    def normal(*shape: int) -> Array:
        return random.normal(0, 0.2, shape).astype(np.float32)

    def norm(name: str, width: int = config["hidden_size"]) -> None:
        offset = 0 if family.sandwich else 1
        tensors[f"{family.prefix}{name}.weight"] = offset + normal(width)

    def linear(name: str, out_features: int, in_features: int, *, bias: bool) -> None:
        tensors[f"{family.prefix}{name}.weight"] = normal(out_features, in_features)
        if bias:
            tensors[f"{family.prefix}{name}.bias"] = normal(out_features)

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // num_heads
    table = normal(config["vocab_size"], hidden)
    tensors[f"{family.prefix}embed_tokens.weight"] = table
    for index in range(config["num_hidden_layers"]):
        layer = f"layers.{index}"
        for part, heads in (("q", num_heads), ("k", num_kv_heads), ("v", num_kv_heads)):
            name = f"{layer}.self_attn.{part}_proj"
            linear(name, heads * head_dim, hidden, bias=family.qkv_bias)
        name = f"{layer}.self_attn.o_proj"
        linear(name, hidden, num_heads * head_dim, bias=family.output_bias)
        if family.qk_norm:
            norm(f"{layer}.self_attn.q_norm", head_dim)
            norm(f"{layer}.self_attn.k_norm", head_dim)
        for part in ("gate", "up"):
            linear(f"{layer}.mlp.{part}_proj", inner, hidden, bias=family.mlp_bias)
        linear(f"{layer}.mlp.down_proj", hidden, inner, bias=family.mlp_bias)
        norm(f"{layer}.input_layernorm")
        norm(f"{layer}.post_attention_layernorm")
        if family.sandwich:
            norm(f"{layer}.pre_feedforward_layernorm")
            norm(f"{layer}.post_feedforward_layernorm")
    norm("norm")
    if family.has_lm_head:
        tensors["lm_head.weight"] = normal(config["vocab_size"], hidden)
    if family.head:
        tensors["linear.weight"] = normal(family.head, hidden)
    return tensors
