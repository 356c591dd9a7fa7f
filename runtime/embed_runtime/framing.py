"""The room a text has between its special tokens, and how what does not fit is cut."""

from dataclasses import dataclass

from embed_runtime.errors import InputTooLongError
from embed_runtime.types import Truncate

# Of a text longer than this many characters for each token that can matter, only a part is read
# at first; text in any script has fewer characters a token, and where it has not, more is read.
CHARS_PER_TOKEN = 8
# The part must give this many tokens more than are kept. It ends at white space, where tokenizers
# split; to one that does not (some BPE and Unigram models join words, BERT drops some control
# characters), the torn word can only change the tokens next to the tear: at most 100 in WordPiece.
SURPLUS_TOKENS = 256


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


def cut_text(text: str, max_chars: int, truncate: Truncate) -> str:
    """Drop the far end of a long text at white space; a text without any there stays whole."""
    if len(text) <= max_chars:
        return text
    if truncate == "START":
        words = text[-max_chars:].split(None, 1)
        return words[1] if len(words) == 2 else text
    words = text[:max_chars].rsplit(None, 1)
    return words[0] if len(words) == 2 else text
