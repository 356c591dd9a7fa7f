"""Encoders with rotary positions: how they are published, and what transformers needs instead."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Settings = dict[str, Any]
Tensors = dict[str, Array]

HIDDEN, INNER, HEADS, POSITIONS = 32, 64, 4, 256


class Maker:
    """Collects random tensors, far from their usual start, so that swapped ones show."""

    def __init__(self, seed: int) -> None:
        self.tensors: Tensors = {}
        self._random = np.random.default_rng(seed)

    def table(self, name: str, *shape: int) -> None:
        self.tensors[name] = self._normal(*shape)

    def linear(self, name: str, out_features: int, in_features: int, *, bias: bool) -> None:
        self.table(f"{name}.weight", out_features, in_features)
        if bias:
            self.table(f"{name}.bias", out_features)

    def norm(self, name: str, width: int, *, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = 1 + self._normal(width) / 2
        if bias:
            self.table(f"{name}.bias", width)

    def _normal(self, *shape: int) -> Array:
        return self._random.normal(0, 0.2, shape).astype(np.float32)


def _modernbert(maker: Maker, config: Settings) -> None:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    maker.table("embeddings.tok_embeddings.weight", config["vocab_size"], hidden)
    maker.norm("embeddings.norm", hidden, bias=False)
    for index in range(config["num_hidden_layers"]):
        name = f"layers.{index}"
        if index:
            maker.norm(f"{name}.attn_norm", hidden, bias=False)
        maker.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=False)
        maker.linear(f"{name}.attn.Wo", hidden, hidden, bias=False)
        maker.norm(f"{name}.mlp_norm", hidden, bias=False)
        maker.linear(f"{name}.mlp.Wi", 2 * inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.Wo", hidden, inner, bias=False)
    maker.norm("final_norm", hidden, bias=False)


def _words(maker: Maker, config: Settings, hidden: int) -> None:
    maker.table("embeddings.word_embeddings.weight", config["vocab_size"], hidden)
    if config["type_vocab_size"]:
        maker.table("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)


def _gte(maker: Maker, config: Settings) -> None:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    _words(maker, config, hidden)
    maker.norm("embeddings.LayerNorm", hidden)
    for index in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{index}"
        maker.linear(f"{name}.attention.qkv_proj", 3 * hidden, hidden, bias=True)
        maker.linear(f"{name}.attention.o_proj", hidden, hidden, bias=True)
        maker.norm(f"{name}.attn_ln", hidden)
        maker.linear(f"{name}.mlp.up_gate_proj", 2 * inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.down_proj", hidden, inner, bias=True)
        maker.norm(f"{name}.mlp_ln", hidden)


def _new(maker: Maker, config: Settings) -> None:
    _gte(maker, config)
    maker.tensors = {f"new.{name}": tensor for name, tensor in maker.tensors.items()}
    maker.linear("classifier", 1, config["hidden_size"], bias=True)


def _nomic(maker: Maker, config: Settings) -> None:
    hidden, inner = config["n_embd"], config["n_inner"]
    _words(maker, config, hidden)
    maker.norm("emb_ln", hidden)
    for index in range(config["n_layer"]):
        name = f"encoder.layers.{index}"
        maker.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=False)
        maker.linear(f"{name}.attn.out_proj", hidden, hidden, bias=False)
        maker.norm(f"{name}.norm1", hidden)
        maker.linear(f"{name}.mlp.fc11", inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.fc12", inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.fc2", hidden, inner, bias=False)
        maker.norm(f"{name}.norm2", hidden)


def _nomic_moe(maker: Maker, config: Settings) -> None:
    hidden, inner, experts = config["n_embd"], config["n_inner"], config["num_experts"]
    _words(maker, config, hidden)
    maker.norm("emb_ln", hidden)
    for index in range(config["n_layer"]):
        name = f"encoder.layers.{index}"
        maker.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=True)
        maker.linear(f"{name}.attn.out_proj", hidden, hidden, bias=True)
        maker.norm(f"{name}.norm1", hidden)
        if index % config["moe_every_n_layers"] == 1:
            maker.linear(f"{name}.mlp.router.layer", experts, hidden, bias=False)
            maker.table(f"{name}.mlp.experts.mlp.w1", experts * inner, hidden)
            maker.table(f"{name}.mlp.experts.mlp.w2", experts * inner, hidden)
            maker.table(f"{name}.mlp.experts.bias", hidden)
        else:
            maker.linear(f"{name}.mlp.fc1", inner, hidden, bias=True)
            maker.linear(f"{name}.mlp.fc2", hidden, inner, bias=True)
        maker.norm(f"{name}.norm2", hidden)


def _jina(maker: Maker, config: Settings) -> None:
    hidden, inner, rank = config["hidden_size"], config["intermediate_size"], config["lora_rank"]
    tasks = len(config["lora_adaptations"])

    def table(name: str, rows: int) -> None:
        maker.table(f"{name}.parametrizations.weight.original", rows, hidden)
        maker.table(f"{name}.parametrizations.weight.0.lora_A", tasks, rows, rank)
        maker.table(f"{name}.parametrizations.weight.0.lora_B", tasks, rank, hidden)

    def linear(name: str, out_features: int, in_features: int) -> None:
        maker.table(f"{name}.parametrizations.weight.original", out_features, in_features)
        maker.table(f"{name}.parametrizations.weight.0.lora_A", tasks, rank, in_features)
        maker.table(f"{name}.parametrizations.weight.0.lora_B", tasks, out_features, rank)
        maker.table(f"{name}.bias", out_features)

    table("roberta.embeddings.word_embeddings", config["vocab_size"])
    table("roberta.embeddings.token_type_embeddings", config["type_vocab_size"])
    maker.norm("roberta.emb_ln", hidden)
    for index in range(config["num_hidden_layers"]):
        name = f"roberta.encoder.layers.{index}"
        linear(f"{name}.mixer.Wqkv", 3 * hidden, hidden)
        linear(f"{name}.mixer.out_proj", hidden, hidden)
        maker.norm(f"{name}.norm1", hidden)
        linear(f"{name}.mlp.fc1", inner, hidden)
        linear(f"{name}.mlp.fc2", hidden, inner)
        maker.norm(f"{name}.norm2", hidden)
    linear("roberta.pooler.dense", hidden, hidden)


_SIZES: Settings = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
_GTE: Settings = {
    **_SIZES,
    "type_vocab_size": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "position_embedding_type": "rope",
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "rope_theta": 160000,
    "rope_scaling": None,
    "pad_token_id": 1,
}
_NOMIC: Settings = {
    "n_embd": HIDDEN,
    "n_layer": 2,
    "n_head": HEADS,
    "n_inner": INNER,
    "n_positions": POSITIONS,
    "max_trained_positions": POSITIONS,
    "layer_norm_epsilon": 1e-12,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "activation_function": "swiglu",
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "prenorm": False,
    "use_rms_norm": False,
    "parallel_block": False,
    "causal": False,
    "scale_attn_weights": True,
    "type_vocab_size": 2,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is published, and what transformers' class needs instead.

    Attributes:
        config: Its config.json, but for the vocabulary's size.
        tensors: Makes its tensors.
        native: That class's config; keys of `config` that it does not name are dropped.
        as_published: Keys of `config` that the class reads as they are.
    """

    config: Settings
    tensors: Callable[[Maker, Settings], None]
    native: Settings
    as_published: tuple[str, ...] = ("vocab_size",)


_NOMIC_NATIVE: Settings = {
    **_SIZES,
    "model_type": "nomic_bert",
    "hidden_act": "silu",
    "layer_norm_eps": 1e-12,
    "rope_theta": 1000.0,
    "type_vocab_size": 2,
}
_MODERNBERT: Settings = {
    **_SIZES,
    "num_hidden_layers": 4,
    "global_attn_every_n_layers": 3,
    "local_attention": 8,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "pad_token_id": 0,
}

_JINA: Settings = {
    **_SIZES,
    "max_position_embeddings": POSITIONS + 2,
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.Model"},
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "lora_adaptations": ["retrieval.query", "separation", "text-matching"],
    "lora_rank": 4,
    "lora_alpha": 2,
    "matryoshka_dimensions": [16, 32],
    "task_instructions": {
        "retrieval.query": "Represent the query for retrieving evidence documents: ",
        "separation": "",
        "text-matching": "",
    },
}

FAMILIES = {
    "modernbert": Family(
        config={"architectures": ["ModernBertModel"], "model_type": "modernbert", **_MODERNBERT},
        tensors=_modernbert,
        native={"model_type": "modernbert"},
        as_published=("vocab_size", *_MODERNBERT),
    ),
    "gte": Family(
        config={"architectures": ["GteModel"], "model_type": "gte", **_GTE},
        tensors=_gte,
        native={"model_type": "gte"},
        as_published=("vocab_size", *_GTE),
    ),
    "new": Family(
        config={
            "architectures": ["NewForTokenClassification"],
            "model_type": "new",
            "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
            **_GTE,
            "type_vocab_size": 0,
            "rope_theta": 20000,
            "rope_scaling": {"type": "ntk", "factor": 8.0},
        },
        tensors=_new,
        native={
            "model_type": "gte",
            **{key: value for key, value in _GTE.items() if key != "rope_scaling"},
            "type_vocab_size": 0,
        },
    ),
    "nomic-bert": Family(
        config={
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling.NomicBertModel"},
            **_NOMIC,
        },
        tensors=_nomic,
        native=_NOMIC_NATIVE,
    ),
    "nomic-bert-moe": Family(
        config={
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling.NomicBertModel"},
            **_NOMIC,
            "n_layer": 4,
            "layer_norm_epsilon": 1e-5,
            "rotary_emb_base": 10000,
            "activation_function": "gelu",
            "qkv_proj_bias": True,
            "mlp_fc1_bias": True,
            "mlp_fc2_bias": True,
            "type_vocab_size": 1,
            "moe_every_n_layers": 2,
            "moe_top_k": 2,
            "moe_normalize_expert_weights": False,
            "num_experts": 4,
            "num_shared_experts": 0,
            "expert_choice_router": False,
            "ffn_div": 1,
        },
        tensors=_nomic_moe,
        native={},
    ),
    "jina-embeddings-v3": Family(
        config={"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", **_JINA},
        tensors=_jina,
        native={
            **_SIZES,
            "model_type": "jina_embeddings_v3",
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "rope_theta": 20000.0,
        },
    ),
}
