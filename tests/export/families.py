"""BERT's kin as the hub publishes them: their settings, and random weights under their names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WIDTH, INNER, LAYERS, HEADS, POSITIONS = 32, 64, 2, 4, 128


class Maker:
    """Collects random tensors under their published names.

    Weights are far from their usual start, and norms are near 1 but not at it, so that swapped,
    forgotten or transposed tensors show.
    """

    def __init__(self, seed: int) -> None:
        self.tensors: dict[str, Array] = {}
        self._random = np.random.default_rng(seed)

    def table(self, name: str, rows: int, width: int = WIDTH) -> None:
        self.tensors[f"{name}.weight"] = self._normal(rows, width)

    def linear(self, name: str, out_features: int, in_features: int) -> None:
        self.tensors[f"{name}.weight"] = self._normal(out_features, in_features)
        self.tensors[f"{name}.bias"] = self._normal(out_features)

    def bias(self, name: str, size: int) -> None:
        self.tensors[name] = self._normal(size)

    def norm(self, name: str) -> None:
        self.tensors[f"{name}.weight"] = 1 + self._normal(WIDTH) / 2
        self.tensors[f"{name}.bias"] = self._normal(WIDTH)

    def _normal(self, *shape: int) -> npt.NDArray[np.float32]:
        return self._random.normal(0, 0.2, shape).astype(np.float32)


def _bert_tensors(maker: Maker, config: Mapping[str, Any]) -> None:
    maker.table("embeddings.word_embeddings", config["vocab_size"])
    maker.table("embeddings.position_embeddings", config["max_position_embeddings"])
    maker.table("embeddings.token_type_embeddings", config["type_vocab_size"])
    if config.get("use_task_id"):
        maker.table("embeddings.task_type_embeddings", config["task_type_vocab_size"])
    maker.norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            maker.linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        maker.linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        maker.norm(f"{layer}.attention.output.LayerNorm")
        maker.linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        maker.linear(f"{layer}.output.dense", WIDTH, INNER)
        maker.norm(f"{layer}.output.LayerNorm")
    maker.linear("pooler.dense", WIDTH, WIDTH)


def _mpnet_tensors(maker: Maker, config: Mapping[str, Any]) -> None:
    maker.table("embeddings.word_embeddings", config["vocab_size"])
    maker.table("embeddings.position_embeddings", config["max_position_embeddings"])
    maker.norm("embeddings.LayerNorm")
    buckets = config["relative_attention_num_buckets"]
    maker.table("encoder.relative_attention_bias", buckets, HEADS)
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        for part in ("q", "k", "v", "o"):
            maker.linear(f"{layer}.attention.attn.{part}", WIDTH, WIDTH)
        maker.norm(f"{layer}.attention.LayerNorm")
        maker.linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        maker.linear(f"{layer}.output.dense", WIDTH, INNER)
        maker.norm(f"{layer}.output.LayerNorm")
    maker.linear("pooler.dense", WIDTH, WIDTH)


def _distilbert_tensors(maker: Maker, config: Mapping[str, Any]) -> None:
    maker.table("embeddings.word_embeddings", config["vocab_size"])
    maker.table("embeddings.position_embeddings", config["max_position_embeddings"])
    maker.norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"transformer.layer.{index}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            maker.linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        maker.norm(f"{layer}.sa_layer_norm")
        maker.linear(f"{layer}.ffn.lin1", INNER, WIDTH)
        maker.linear(f"{layer}.ffn.lin2", WIDTH, INNER)
        maker.norm(f"{layer}.output_layer_norm")


def _bert_head(maker: Maker, vocab_size: int) -> None:
    maker.linear("cls.predictions.transform.dense", WIDTH, WIDTH)
    maker.norm("cls.predictions.transform.LayerNorm")
    maker.table("cls.predictions.decoder", vocab_size)
    maker.bias("cls.predictions.bias", vocab_size)


def _roberta_head(maker: Maker, vocab_size: int) -> None:
    maker.linear("lm_head.dense", WIDTH, WIDTH)
    maker.norm("lm_head.layer_norm")
    maker.table("lm_head.decoder", vocab_size)
    maker.bias("lm_head.bias", vocab_size)


def _distilbert_head(maker: Maker, vocab_size: int) -> None:
    maker.linear("vocab_transform", WIDTH, WIDTH)
    maker.norm("vocab_layer_norm")
    maker.table("vocab_projector", vocab_size)
    maker.bias("vocab_projector.bias", vocab_size)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is published.

    Attributes:
        config: Its config.json, but for the vocabulary's size.
        prefix: What its names start with when it was saved with a head.
        head: Makes that head's tensors, which an embedding never needs.
        head_architecture: What config.json calls the model then.
        tensors: Makes the backbone's tensors.
        tokenizer: Which of the tiny tokenizers it has.
        tokenizer_config: Its tokenizer_config.json.
    """

    config: Mapping[str, object]
    prefix: str
    head: Callable[[Maker, int], None]
    head_architecture: str
    tensors: Callable[[Maker, Mapping[str, Any]], None]
    tokenizer: str
    tokenizer_config: Mapping[str, object]


_SIZES: dict[str, object] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA_SIZES: dict[str, object] = {
    **_SIZES,
    "max_position_embeddings": POSITIONS + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_BERT_WORDS: dict[str, object] = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "do_lower_case": True,
    "model_max_length": POSITIONS,
}
_ROBERTA_WORDS: dict[str, object] = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "model_max_length": POSITIONS,
}

FAMILIES = {
    "bert": Family(
        config={"architectures": ["BertModel"], "model_type": "bert", **_SIZES},
        prefix="bert.",
        head=_bert_head,
        head_architecture="BertForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="wordpiece",
        tokenizer_config={**_BERT_WORDS, "tokenizer_class": "BertTokenizer"},
    ),
    "ernie": Family(
        config={
            "architectures": ["ErnieModel"],
            "model_type": "ernie",
            **_SIZES,
            "hidden_act": "relu",
            "type_vocab_size": 4,
            "task_type_vocab_size": 3,
            "use_task_id": True,
        },
        prefix="ernie.",
        head=_bert_head,
        head_architecture="ErnieForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="wordpiece",
        tokenizer_config={**_BERT_WORDS, "tokenizer_class": "BertTokenizer"},
    ),
    "roberta": Family(
        config={"architectures": ["RobertaModel"], "model_type": "roberta", **_ROBERTA_SIZES},
        prefix="roberta.",
        head=_roberta_head,
        head_architecture="RobertaForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="bytes",
        tokenizer_config={**_ROBERTA_WORDS, "tokenizer_class": "RobertaTokenizer"},
    ),
    "xlm-roberta": Family(
        config={
            "architectures": ["XLMRobertaModel"],
            "model_type": "xlm-roberta",
            **_ROBERTA_SIZES,
        },
        prefix="roberta.",
        head=_roberta_head,
        head_architecture="XLMRobertaForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="unigram",
        tokenizer_config={**_ROBERTA_WORDS, "tokenizer_class": "XLMRobertaTokenizer"},
    ),
    "camembert": Family(
        config={
            "architectures": ["CamembertModel"],
            "model_type": "camembert",
            **_ROBERTA_SIZES,
            "bos_token_id": 5,
            "eos_token_id": 6,
        },
        prefix="roberta.",
        head=_roberta_head,
        head_architecture="CamembertForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="camembert",
        tokenizer_config={**_ROBERTA_WORDS, "tokenizer_class": "CamembertTokenizer"},
    ),
    "mpnet": Family(
        config={
            "architectures": ["MPNetModel"],
            "model_type": "mpnet",
            **_ROBERTA_SIZES,
            "relative_attention_num_buckets": 32,
        },
        prefix="mpnet.",
        head=_roberta_head,
        head_architecture="MPNetForMaskedLM",
        tensors=_mpnet_tensors,
        tokenizer="mpnet",
        tokenizer_config={
            **_ROBERTA_WORDS,
            "unk_token": "[UNK]",
            "do_lower_case": True,
            "tokenizer_class": "MPNetTokenizer",
        },
    ),
    "distilbert": Family(
        config={
            "architectures": ["DistilBertModel"],
            "model_type": "distilbert",
            "dim": WIDTH,
            "hidden_dim": INNER,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "activation": "gelu",
            "max_position_embeddings": POSITIONS,
            "sinusoidal_pos_embds": False,
            "pad_token_id": 0,
        },
        prefix="distilbert.",
        head=_distilbert_head,
        head_architecture="DistilBertForMaskedLM",
        tensors=_distilbert_tensors,
        tokenizer="wordpiece",
        tokenizer_config={**_BERT_WORDS, "tokenizer_class": "DistilBertTokenizer"},
    ),
}


def make_tensors(
    how: Family, config: Mapping[str, Any], *, prefixed: bool, seed: int
) -> dict[str, Array]:
    """Make a checkpoint's tensors; `prefixed` ones are those of a masked language model."""
    maker = Maker(seed)
    how.tensors(maker, config)
    if not prefixed:
        return maker.tensors
    head = Maker(seed + 1)
    how.head(head, config["vocab_size"])
    return {f"{how.prefix}{name}": one for name, one in maker.tensors.items()} | head.tensors
