"""Real texts, drawn with a fixed seed: as long as they are, or cut to a length."""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

from tokenizers import Tokenizer

from embed_export.corpus import real_texts

# All texts the corpus has; what is drawn from them has the corpus's lengths.
_NUM_CORPUS_TEXTS = 3600
_SEED = 0
_FILLER = " a"  # One token in nearly every vocabulary.


def token_counter(checkpoint: Path) -> Callable[[str], int]:
    """Give the function that counts a text's tokens, special ones included, none cut off."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text).ids)


def draw_texts(count: int) -> tuple[str, ...]:
    """Draw texts of the corpus in random order."""
    return tuple(random.Random(_SEED).sample(real_texts(_NUM_CORPUS_TEXTS), count))  # noqa: S311 - not a secret


def query_texts(
    num_tokens: Callable[[str], int], allowed: range, max_texts: int
) -> tuple[str, ...]:
    """Draw texts whose number of tokens is allowed."""
    return tuple(islice((text for text in _shuffled() if num_tokens(text) in allowed), max_texts))


def texts_of_length(count: int, length: int, num_tokens: Callable[[str], int]) -> tuple[str, ...]:
    """Cut distinct texts of exactly so many tokens out of the corpus, read as one long text.

    Raises:
        ValueError: This tokenizer cannot be brought to this length.
    """
    words = cycle(" ".join(_shuffled()).split())
    kept: list[str] = []
    texts: list[str] = []
    while len(texts) < count:
        kept += islice(words, length - len(kept))
        used = _longest_start(kept, length, num_tokens)
        if not used:  # A drawn line, for example, is one word of many tokens.
            del kept[0]
            continue
        text = " ".join(kept[:used])
        while num_tokens(text) < length:
            text += _FILLER
        if num_tokens(text) != length:
            raise ValueError(f"no text of exactly {length} tokens; use another --length")
        texts.append(text)
        kept = kept[used:]
    return tuple(texts)


def _longest_start(words: Sequence[str], length: int, num_tokens: Callable[[str], int]) -> int:
    """Say how many of the first words stay within a length."""
    sizes = range(1, len(words) + 1)
    return bisect_right(sizes, length, key=lambda size: num_tokens(" ".join(words[:size])))


def _shuffled() -> tuple[str, ...]:
    return draw_texts(len(real_texts(_NUM_CORPUS_TEXTS)))
