"""What is embedded: each model, with real texts of mixed length or of one length."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.checkpoints import (
    QWEN3,
    long_minilm_checkpoint,
    minilm_checkpoint,
    random_bert,
    random_qwen3,
    random_xlm_roberta,
)
from benchmarks.texts import draw_texts, query_texts, texts_of_length, token_counter
from embed_runtime.types import IntArray

# Single queries: as long as people's questions are.
_QUERY_TOKENS = range(25, 36)
_NUM_QUERIES = 100
# A pass over one text of the longest models would take minutes.
_MAX_LENGTH = 8192

Length: TypeAlias = int | Literal["max"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the operations of a model are counted from.

    Attributes:
        products: Width in and width out of each matrix product of one layer.
        attention_width: Heads times their size.
        is_causal: Whether a token sees only those before it.
        num_layers: Layers, all alike.
    """

    products: tuple[tuple[int, int], ...]
    attention_width: int
    is_causal: bool
    num_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One model and the texts it embeds.

    Attributes:
        name: Its word on the command line and in results.
        checkpoint: Sentence-Transformers folder.
        max_tokens: Longest text the model reads in full.
        length: Tokens of every text; None for texts of mixed length.
        texts: In the order they are handed over.
        lengths: [N] int32, tokens of each text as the model reads it.
        queries: Texts to be embedded one by one.
        mean_query_tokens: Their mean length.
        shape: Of the model.
    """

    name: str
    checkpoint: Path
    max_tokens: int
    length: int | None
    texts: tuple[str, ...]
    lengths: IntArray
    queries: tuple[str, ...]
    mean_query_tokens: float
    shape: Shape

    @property
    def num_tokens(self) -> int:
        """Real tokens in one pass over the texts."""
        return int(self.lengths.sum())

    @property
    def num_flops(self) -> int:
        """Floating-point operations one pass needs without any padding.

        Per layer and token 2 x in x out in each product; per layer and row 4 T T x width for
        attention scores and their weighted sum, half of that where the upper half is masked.
        Embeddings, norms and pooling are left out.
        """
        shape = self.shape
        linear = 2 * sum(wide * out for wide, out in shape.products) * self.num_tokens
        attention = 4 * shape.attention_width * int((self.lengths.astype(np.int64) ** 2).sum())
        return shape.num_layers * (linear + attention // (2 if shape.is_causal else 1))


def all_minilm(length: Length = None) -> Workload:
    """Real weights: all-MiniLM-L6-v2, at most 256 tokens."""
    return _encoder_workload("all-MiniLM-L6-v2", minilm_checkpoint(), 1000, length)


def long_minilm(length: Length = None) -> Workload:
    """Real weights: all-MiniLM-L6-v2, at most 512 tokens, for long documents."""
    return _encoder_workload("all-MiniLM-L6-v2-512", long_minilm_checkpoint(), 1000, length)


def bge_base_size(length: Length = None) -> Workload:
    """Random weights in the shape of bge-base-en-v1.5, at most 512 tokens."""
    folder = random_bert(
        "bge-base-size", hidden_size=768, num_layers=12, num_heads=12, max_tokens=512
    )
    return _encoder_workload("bge-base-size", folder, 120, length)


def bge_m3_size(length: Length = None) -> Workload:
    """Random weights in the shape of bge-m3, at most 8,192 tokens."""
    return _encoder_workload("bge-m3-size", random_xlm_roberta("bge-m3-size"), 24, length)


def qwen3_size(length: Length = None) -> Workload:
    """Random weights in the shape of Qwen3-Embedding-0.6B, in bfloat16 as published."""
    checkpoint = random_qwen3("qwen3-0.6b-size")
    hidden, inner = QWEN3["hidden_size"], QWEN3["intermediate_size"]
    queries = QWEN3["num_attention_heads"] * QWEN3["head_dim"]
    keys = QWEN3["num_key_value_heads"] * QWEN3["head_dim"]
    return _workload(
        "qwen3-0.6b-size",
        checkpoint,
        num_texts=40,
        length=length,
        shape=Shape(
            products=(
                *((hidden, queries + 2 * keys), (queries, hidden)),
                *((hidden, 2 * inner), (inner, hidden)),
            ),
            attention_width=queries,
            is_causal=True,
            num_layers=QWEN3["num_hidden_layers"],
        ),
    )


def toy(length: Length = None) -> Workload:
    """Random weights, small enough to test the benchmark itself in seconds."""
    folder = random_bert("toy", hidden_size=64, num_layers=2, num_heads=4, max_tokens=64)
    return _encoder_workload("toy", folder, 24, length)


WORKLOADS: dict[str, Callable[..., Workload]] = {
    "all-MiniLM-L6-v2": all_minilm,
    "all-MiniLM-L6-v2-512": long_minilm,
    "bge-base-size": bge_base_size,
    "bge-m3-size": bge_m3_size,
    "qwen3-0.6b-size": qwen3_size,
    "toy": toy,
}


def _encoder_workload(name: str, checkpoint: Path, num_texts: int, length: Length) -> Workload:
    """Read a BERT's shape from its configuration."""
    config = json.loads((checkpoint / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shape = Shape(
        products=((hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)),
        attention_width=hidden,
        is_causal=False,
        num_layers=config["num_hidden_layers"],
    )
    return _workload(name, checkpoint, num_texts=num_texts, length=length, shape=shape)


def _workload(
    name: str, checkpoint: Path, *, num_texts: int, length: Length, shape: Shape
) -> Workload:
    """Draw the texts: of mixed length, or as many tokens in texts of one length."""
    limit = json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"]
    count = token_counter(checkpoint)
    texts = draw_texts(num_texts)
    if length is not None:
        wanted = min(limit, _MAX_LENGTH) if length == "max" else length
        if wanted > limit:
            raise ValueError(f"{name} reads at most {limit} tokens, not {wanted}")
        num_tokens = sum(min(count(text), limit) for text in texts)
        texts = texts_of_length(max(1, num_tokens // wanted), wanted, count)
    queries = query_texts(count, _QUERY_TOKENS, _NUM_QUERIES)
    lengths = np.minimum([count(text) for text in texts], limit).astype(np.int32)
    return Workload(
        name=name,
        checkpoint=checkpoint,
        max_tokens=limit,
        length=None if length is None else int(lengths[0]),
        texts=texts,
        lengths=lengths,
        queries=queries,
        mean_query_tokens=statistics.fmean(map(count, queries)),
        shape=shape,
    )
