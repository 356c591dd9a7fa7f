"""Request bodies of real text, written to files for the load generator."""

import json
import random
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.checkpoints import CACHE
from embed_export.corpus import real_texts

# What every server under comparison is told to call its model.
MODEL_NAME = "model"

_SEED = 0


def write_bodies(name: str, inputs: Iterable[object]) -> Path:
    """Write one request for each input, or list of them, that asks for base64."""
    path = CACHE / "bodies" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for one in inputs:
            body = {"model": MODEL_NAME, "input": one, "encoding_format": "base64"}
            file.write(json.dumps(body) + "\n")
    return path


def texts_of_length(
    tokenizer_file: Path, *, shortest: int, longest: int, count: int
) -> tuple[str, ...]:
    """Draw docstrings that have so many tokens, special ones included."""
    texts = [text for text in _corpus() if text.strip()]
    lengths = [len(row.ids) for row in open_tokenizer(tokenizer_file).encode_batch(texts)]
    fitting = [text for text, n in zip(texts, lengths, strict=True) if shortest <= n <= longest]
    return tuple(random.Random(_SEED).sample(fitting, count))  # noqa: S311 - not a secret


def documents_of_length(tokenizer_file: Path, *, num_tokens: int, count: int) -> tuple[str, ...]:
    """Cut documents out of all docstrings, each with so many tokens or one or two fewer."""
    tokenizer = open_tokenizer(tokenizer_file)
    words = " ".join(_corpus()).split()
    chooser = random.Random(_SEED)  # noqa: S311 - not a secret
    starts = [chooser.randrange(len(words) - num_tokens) for _ in range(count)]
    raw = [" ".join(words[start : start + num_tokens]) for start in starts]
    documents: list[str] = []
    for text, encoding in zip(raw, tokenizer.encode_batch(raw), strict=True):
        # The last token of a text is a special one.
        end = encoding.offsets[num_tokens - 2][1]
        documents.append(text[:end])
    return tuple(documents)


def count_tokens(tokenizer_file: Path, texts: Sequence[str]) -> list[int]:
    """Count the tokens of texts, special ones included."""
    return [len(row.ids) for row in open_tokenizer(tokenizer_file).encode_batch(list(texts))]


def open_tokenizer(file: Path) -> Tokenizer:
    """Open a tokenizer that neither pads nor cuts."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@cache
def _corpus() -> list[str]:
    return list(real_texts(3600))
