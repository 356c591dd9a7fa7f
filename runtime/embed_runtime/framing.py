"""The room a text has between its special tokens, and how what does not fit is cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embed_runtime.errors import InputError, InputTooLongError
from embed_runtime.types import Truncate

# Of a text longer than this many characters for each token that can matter, only a part is read
# at first; text in any script has fewer characters a token, and where it has not, more is read.
CHARS_PER_TOKEN = 8
# The part must give this many tokens more than are kept. It ends at white space, where tokenizers
# split, or anywhere (see `tearing.py`); to one that does not split there (some BPE and Unigram
# models join words), the torn word can only change the tokens next to the tear.
SURPLUS_TOKENS = 256
# Texts are tokenized so many characters at a time, or one text: the library holds a few hundred
# bytes for each token until it has done them all.
CHARS_AT_ONCE = 2**20
# No more is read of a text that is far too long: it would take gigabytes.
MAX_PART_CHARS = 2**22


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens around a text, and how much fits between them."""

    first: list[int]
    last: list[int]
    limit: int
    truncate: Truncate

    @property
    def room(self) -> int:
        """Tokens left for the text itself; negative where not even the special tokens fit."""
        return self.limit - len(self.first) - len(self.last)

    @property
    def enough(self) -> int:
        """Tokens that a part of a text must give before the rest of the text does not matter."""
        return self.limit + SURPLUS_TOKENS

    def wrap(self, content: list[int]) -> list[int]:
        """Put the special tokens around a text's own."""
        return self.first + content + self.last

    def cut(self, ids: list[int], index: int) -> list[int]:
        """Slice ids to the limit, whatever they stand for; refuse that where `truncate` is NONE."""
        if len(ids) <= self.limit:
            return ids
        if self.truncate == "NONE":
            raise InputTooLongError(
                f"input {index} has at least {len(ids)} tokens, and the maximum context length is"
                f" {self.limit} tokens; shorten it, or set truncate to END or START",
                param="input_tokens",
                index=index,
            )
        return ids[: self.limit] if self.truncate == "END" else ids[-self.limit :]


def cut_text(
    text: str, max_chars: int, truncate: Truncate, *, anywhere: bool = False, most: int = 0
) -> str:
    """Drop the far end of a long text.

    Args:
        text: It.
        max_chars: How much of it to keep, about.
        truncate: Which end is kept: the last one for START.
        anywhere: Whether to cut in words too; else a text without white space there stays whole.
        most: How much may be left, if that is more than `MAX_PART_CHARS`.

    Raises:
        InputError: More than that is left.
    """
    if len(text) <= max_chars:
        return text
    part = text[-max_chars:] if truncate == "START" else text[:max_chars]
    if not anywhere:
        words = part.split(None, 1) if truncate == "START" else part.rsplit(None, 1)
        part = words[truncate == "START"] if len(words) == 2 else text
    most = max(most, MAX_PART_CHARS)
    if len(part) > most:
        side = "last" if truncate == "START" else "first"
        raise InputError(
            f"a text of {len(text)} characters, {text[:20]!r} and so on, has no white space to cut"
            f" it at, or too few tokens, in its {side} {most}; shorten it",
            param="inputs",
        )
    return part


def group_texts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Take texts apart into neighbours of at most `CHARS_AT_ONCE` characters, or single ones."""
    start, num_chars = 0, 0
    for index, text in enumerate(texts):
        if index > start and num_chars + len(text) > CHARS_AT_ONCE:
            yield texts[start:index]
            start, num_chars = index, 0
        num_chars += len(text)
    yield texts[start:]
