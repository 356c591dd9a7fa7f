"""What is embedded: checkpoints, and real texts of uneven length."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.checkpoints import (
    QWEN3,
    long_minilm_checkpoint,
    minilm_checkpoint,
    random_bert,
    random_qwen3,
)
from embed_export.corpus import real_texts
from embed_runtime.types import IntArray

# All texts the corpus has; a workload draws its own from them, so lengths are the corpus's.
_NUM_CORPUS_TEXTS = 3600
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One model and the texts it embeds.

    Attributes:
        name: Its word on the command line and in results.
        checkpoint: Sentence-Transformers folder.
        texts: In the order they are handed over.
        lengths: [N] int32, tokens of each text as the model reads it.
        products: Width in and width out of each matrix product of one layer.
        attention_width: Heads times their size.
        is_causal: Whether a token sees only those before it.
        num_layers: Layers, all alike.
    """

    name: str
    checkpoint: Path
    texts: tuple[str, ...]
    lengths: IntArray
    products: tuple[tuple[int, int], ...]
    attention_width: int
    is_causal: bool
    num_layers: int

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
        linear = 2 * sum(wide * out for wide, out in self.products) * self.num_tokens
        attention = 4 * self.attention_width * int((self.lengths.astype(np.int64) ** 2).sum())
        return self.num_layers * (linear + attention // (2 if self.is_causal else 1))


def all_minilm() -> Workload:
    """Real weights: all-MiniLM-L6-v2, at most 256 tokens."""
    return _bert_workload("all-MiniLM-L6-v2", minilm_checkpoint(), num_texts=1000)


def long_minilm() -> Workload:
    """Real weights: all-MiniLM-L6-v2, at most 512 tokens, for long documents."""
    return _bert_workload("all-MiniLM-L6-v2-512", long_minilm_checkpoint(), num_texts=1000)


def bge_base_size() -> Workload:
    """Random weights in the shape of bge-base-en-v1.5, at most 512 tokens."""
    folder = random_bert(
        "bge-base-size", hidden_size=768, num_layers=12, num_heads=12, max_tokens=512
    )
    return _bert_workload("bge-base-size", folder, num_texts=120)


def qwen3_size() -> Workload:
    """Random weights in the shape of Qwen3-Embedding-0.6B, in bfloat16 as published."""
    checkpoint = random_qwen3("qwen3-0.6b-size")
    texts = _draw_texts(40)
    hidden, inner = QWEN3["hidden_size"], QWEN3["intermediate_size"]
    queries = QWEN3["num_attention_heads"] * QWEN3["head_dim"]
    keys = QWEN3["num_key_value_heads"] * QWEN3["head_dim"]
    return Workload(
        name="qwen3-0.6b-size",
        checkpoint=checkpoint,
        texts=texts,
        lengths=_count_tokens(
            checkpoint / "tokenizer.json", texts, max_tokens=QWEN3["max_position_embeddings"]
        ),
        products=(
            *((hidden, queries + 2 * keys), (queries, hidden)),
            *((hidden, 2 * inner), (inner, hidden)),
        ),
        attention_width=queries,
        is_causal=True,
        num_layers=QWEN3["num_hidden_layers"],
    )


def toy() -> Workload:
    """Random weights, small enough to test the benchmark itself in seconds."""
    folder = random_bert("toy", hidden_size=64, num_layers=2, num_heads=4, max_tokens=64)
    return _bert_workload("toy", folder, num_texts=24)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "all-MiniLM-L6-v2": all_minilm,
    "all-MiniLM-L6-v2-512": long_minilm,
    "bge-base-size": bge_base_size,
    "qwen3-0.6b-size": qwen3_size,
    "toy": toy,
}


def _draw_texts(count: int) -> tuple[str, ...]:
    return tuple(random.Random(_SEED).sample(real_texts(_NUM_CORPUS_TEXTS), count))  # noqa: S311 - not a secret


def _bert_workload(name: str, checkpoint: Path, *, num_texts: int) -> Workload:
    """Draw the texts and read the model's shape from its configuration."""
    texts = _draw_texts(num_texts)
    config = json.loads((checkpoint / "config.json").read_text())
    limit = json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return Workload(
        name=name,
        checkpoint=checkpoint,
        texts=texts,
        lengths=_count_tokens(checkpoint / "tokenizer.json", texts, max_tokens=limit),
        products=((hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)),
        attention_width=hidden,
        is_causal=False,
        num_layers=config["num_hidden_layers"],
    )


def _count_tokens(tokenizer_file: Path, texts: Sequence[str], *, max_tokens: int) -> IntArray:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = [len(row.ids) for row in tokenizer.encode_batch(list(texts))]
    return np.minimum(lengths, max_tokens).astype(np.int32)
