"""Texts to token ids: prompts, truncation, and the checks of what a caller may send."""

import reprlib
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import tokenizers

from embed_runtime.errors import BundleError, InputError, InputTooLongError
from embed_runtime.manifest import TokenizerSpec
from embed_runtime.types import EmbedRequest, TextOrIds, TokenizedInput, Truncate

# Of a text longer than this many characters for each token that can matter, only a part is read
# at first; text in any script has fewer characters a token, and where it has not, more is read.
_CHARS_PER_TOKEN = 8
# The part must give this many tokens more than are kept. It ends at white space, where tokenizers
# split; to one that does not (some BPE and Unigram models join words, BERT drops some control
# characters), the torn word can only change the tokens next to the tear: at most 100 in WordPiece.
_SURPLUS_TOKENS = 256


@dataclass(frozen=True, slots=True)
class _Frame:
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
        return self.limit + _SURPLUS_TOKENS

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of a text.

    Attributes:
        id: Its number in the vocabulary.
        text: What it stands for: a part of the text, or a special token's own name.
        start: Its first character in the text; None for the special tokens around the text.
        stop: The character behind its last; None like `start`.
    """

    id: int
    text: str
    start: int | None = None
    stop: int | None = None


class Tokenizer:
    """A bundle's tokenizer. Any number of threads may use it at once.

    Attributes:
        max_tokens: Longest input the model takes, special tokens included.
        vocab_size: Token ids are below this.
    """

    def __init__(
        self, path: Path, *, spec: TokenizerSpec, max_tokens: int, include_prompt: bool = True
    ) -> None:
        """Read `tokenizer.json`.

        Args:
            path: The file, already checked against the manifest.
            spec: What the manifest says about it.
            max_tokens: Longest input the model takes.
            include_prompt: Whether the tokens of a prompt are pooled with the others.

        Raises:
            BundleError: The file is no tokenizer, or not the one that the manifest describes.
        """
        self.max_tokens = max_tokens
        self.vocab_size = spec.vocab_size
        self._include_prompt = include_prompt
        try:
            self._library = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise BundleError(f"{path}: not a tokenizer: {error}") from error
        self._library.no_truncation()
        self._library.no_padding()
        self._first, self._last = self._find_special_tokens(path)
        num_special_tokens = len(self._first) + len(self._last)
        if num_special_tokens != spec.num_special_tokens:
            raise BundleError(
                f"{path}: adds {num_special_tokens} special tokens, the manifest says"
                f" {spec.num_special_tokens}; export the model again"
            )
        added = self._library.get_added_tokens_decoder()
        self._special_ids = frozenset(number for number, token in added.items() if token.special)

    def encode(
        self, request: EmbedRequest, *, prompt: str = "", first_index: int = 0
    ) -> list[TokenizedInput]:
        """Tokenize the inputs of a request, in order.

        Texts get the prompt in front and the special tokens around; token ids are used verbatim.
        An overlong text loses tokens at its end (END) or at its front, behind the prompt (START);
        the special tokens stay.

        Args:
            request: Of which `inputs`, `truncate`, `max_tokens`, `add_special_tokens` are read.
            prompt: Put in front of every text, without a separator.
            first_index: Position of the first input, for error messages.

        Raises:
            InputTooLongError: An input is too long and `truncate` is NONE.
            InputError: There is no input; or one is empty, of a wrong type, not Unicode or
                outside the vocabulary; or `max_tokens` is out of range.
        """
        inputs = _check_inputs(request.inputs)
        frame = self._frame(request)
        texts = [
            self._check_text(prompt + one, index)
            for index, one in enumerate(inputs, first_index)
            if isinstance(one, str)
        ]
        num_skipped = self._count_skipped(prompt, frame) if texts else 0
        contents = zip(texts, self._encode_texts(texts, frame), strict=True)
        rows: list[list[int]] = []
        skipped: list[int] = []
        for index, one in enumerate(inputs, first_index):
            if isinstance(one, str):
                text, content = next(contents)
                rows.append(self._fit_text(content, text, prompt, frame, index))
                skipped.append(num_skipped)
            else:
                ids = one if _is_list(one) else _check_ids(one, index)
                rows.append(frame.cut(ids, index))
                skipped.append(0)
        return self._to_inputs(rows, skipped, first_index)

    def encode_together(
        self, request: EmbedRequest, *, prompt: str = ""
    ) -> tuple[TokenizedInput, npt.NDArray[np.int64]]:
        """Tokenize the inputs of a request as one text; nothing of it is cut.

        The prompt and the first special tokens belong to the first input, the last ones to the
        last: of one input alone it is the same as `encode`.

        Args:
            request: Of which `inputs`, `add_special_tokens` are read.
            prompt: Put in front of the first input.

        Returns:
            All tokens, and [N+1] int64: input i has those of `offsets[i]:offsets[i+1]`.

        Raises:
            InputTooLongError: All inputs together are longer than the model takes.
            InputError: As in `encode`.
        """
        frame = self._frame(replace(request, max_tokens=None, truncate="NONE", chunk=False))
        rows: list[list[int]] = []
        for index, one in enumerate(_check_inputs(request.inputs)):
            front = prompt if index == 0 else ""
            rows.append(
                self.encode_text(front + one, add_special_tokens=False, index=index)
                if isinstance(one, str)
                else _check_ids(one, index)
            )
        spans = [item.input_ids for item in self._to_inputs(rows, [0] * len(rows), 0)]
        counts = np.array([len(ids) for ids in spans], np.int64)
        counts[0] += len(frame.first)
        counts[-1] += len(frame.last)
        whole = np.concatenate([frame.first, *spans, frame.last]).astype(np.int32)
        if len(whole) > self.max_tokens:
            raise InputTooLongError(
                f"the inputs have {len(whole)} tokens together, and the maximum context length is"
                f" {self.max_tokens} tokens; send fewer at once",
                param="input_tokens",
            )
        return TokenizedInput(input_ids=whole), np.concatenate([[0], np.cumsum(counts)])

    def encode_text(
        self, text: str, *, add_special_tokens: bool = True, index: int = 0
    ) -> list[int]:
        """Give the ids of one whole text; nothing is cut, and no prompt comes in front.

        Raises:
            InputError: The text is not Unicode; the message says it is input `index`.
        """
        self._check_text(text, index)
        ids = self._library.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return [*self._first, *ids, *self._last] if add_special_tokens else ids

    def shorten(self, text: str, max_tokens: int) -> str:
        """Cut a text behind its first tokens; special tokens are not counted.

        Raises:
            InputError: The text is not Unicode.
        """
        self._check_text(text, 0)
        num_chars = _CHARS_PER_TOKEN * (max_tokens + _SURPLUS_TOKENS)
        for part in (_cut(text, num_chars, "END"), text):
            encoding = self._library.encode_batch([part], add_special_tokens=False)[0]
            if len(encoding.ids) > max_tokens:
                return part[: encoding.offsets[max_tokens - 1][1]]
            if len(part) == len(text):
                break
        return text

    def locate(self, text: str, *, add_special_tokens: bool = True, index: int = 0) -> list[Token]:
        """Give the tokens of one whole text and where in it they are; nothing is cut.

        Raises:
            InputError: The text is not Unicode; the message says it is input `index`.
        """
        self._check_text(text, index)
        # The slower call, because only it tells where in the text a token came from.
        encoding = self._library.encode_batch([text], add_special_tokens=False)[0]
        tokens = [
            Token(id=one, text=text[start:stop], start=start, stop=stop)
            for one, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        if not add_special_tokens:
            return tokens
        first, last = (
            [Token(id=one, text=self._library.id_to_token(one) or "") for one in ids]
            for ids in (self._first, self._last)
        )
        return [*first, *tokens, *last]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Give the text of ids.

        Raises:
            InputError: An id is outside the vocabulary.
        """
        self._check_vocabulary(ids)
        return self._library.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Give the vocabulary's entry for each id; an empty text where it has none.

        Raises:
            InputError: An id is outside the vocabulary.
        """
        self._check_vocabulary(ids)
        return [self._library.id_to_token(one) or "" for one in ids]

    def _check_vocabulary(self, ids: Sequence[int]) -> None:
        for one in ids:
            if not 0 <= one < self.vocab_size:
                raise InputError(
                    f"token id {one} is outside 0..{self.vocab_size - 1}", param="tokens"
                )

    def _find_special_tokens(self, path: Path) -> tuple[list[int], list[int]]:
        """Learn which tokens go in front of a text and behind it."""
        encoding = self._library.encode_batch_fast(["a"])[0]
        ids, mask = encoding.ids, encoding.special_tokens_mask
        num_first = mask.index(0) if 0 in mask else len(ids)
        num_last = mask[::-1].index(0) if 0 in mask else 0
        first, last = ids[:num_first], ids[len(ids) - num_last :]
        for probe in ("", "a", "a b, c"):
            whole = self._library.encode_batch_fast([probe])[0].ids
            content = self._library.encode_batch_fast([probe], add_special_tokens=False)[0].ids
            if whole != first + content + last:
                raise BundleError(
                    f"{path}: special tokens are not put around a text; only tokenizers that add"
                    " a fixed prefix and suffix are supported"
                )
        return first, last

    def _frame(self, request: EmbedRequest) -> _Frame:
        """Check the limits a request sets."""
        most = sys.maxsize if request.chunk else self.max_tokens
        limit = most if request.max_tokens is None else request.max_tokens
        if not 1 <= limit <= most:
            raise InputError(f"max_tokens={limit} is outside 1..{most}", param="max_tokens")
        if request.truncate not in ("END", "START", "NONE"):
            raise InputError(
                f"truncate={request.truncate!r} must be END, START or NONE", param="truncate"
            )
        framed = request.add_special_tokens
        return _Frame(
            self._first if framed else [], self._last if framed else [], limit, request.truncate
        )

    def _check_text(self, text: str, index: int) -> str:
        """Refuse text that UTF-8 cannot write."""
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"input {index} is not valid Unicode: it has a lone surrogate"
                    f" {text[error.start]!r}; decode the text it came from correctly",
                    param="inputs",
                    index=index,
                ) from error
        return text

    def _encode_texts(self, texts: Sequence[str], frame: _Frame) -> Iterator[list[int]]:
        """Yield the token ids of each text, without special tokens.

        Of a text that is far too long these are only the tokens at the end that is kept: those
        that can be in the result, and `_SURPLUS_TOKENS` more.
        """
        if not texts:
            return
        max_chars = _CHARS_PER_TOKEN * frame.enough
        parts = [_cut(text, max_chars, frame.truncate) for text in texts]
        encodings = self._library.encode_batch_fast(parts, add_special_tokens=False)
        for text, part, encoding in zip(texts, parts, encodings, strict=True):
            ids, num_chars = encoding.ids, max_chars
            while len(part) < len(text) and len(ids) < frame.enough:
                num_chars *= 4
                part = _cut(text, num_chars, frame.truncate)
                ids = self._library.encode_batch_fast([part], add_special_tokens=False)[0].ids
            yield ids

    def _fit_text(
        self, content: list[int], text: str, prompt: str, frame: _Frame, index: int
    ) -> list[int]:
        """Cut a text's tokens to what fits, and put the special tokens around."""
        if len(content) <= frame.room:
            return frame.wrap(content)
        if frame.room < 0 or frame.truncate == "NONE":
            return frame.cut(frame.wrap(content), index)
        if frame.truncate == "END":
            return frame.wrap(content[: frame.room])
        kept = self._prompt_tokens(text, prompt)
        if len(kept) >= frame.room:
            kept = []
        return frame.wrap(kept + content[len(content) - frame.room + len(kept) :])

    def _prompt_tokens(self, text: str, prompt: str) -> list[int]:
        """Find the tokens that lie wholly in the prompt at the front of a text."""
        if not prompt:
            return []
        num_chars = len(prompt)
        # The slower call, because only it tells where in the text a token came from.
        part = text[: num_chars + _CHARS_PER_TOKEN * _SURPLUS_TOKENS]
        encoding = self._library.encode_batch([part], add_special_tokens=False)[0]
        ends = [end for _, end in encoding.offsets]
        return encoding.ids[: sum(end <= num_chars for end in ends)]

    def _count_skipped(self, prompt: str, frame: _Frame) -> int:
        """Count the leading tokens that pooling leaves out, as Sentence-Transformers counts them.

        That is the prompt tokenized alone, without the special token at its end if it has one
        (`Transformer._get_prompt_length` in sentence-transformers 6.2).
        """
        if self._include_prompt or not prompt:
            return 0
        [content] = self._encode_texts([self._check_text(prompt, 0)], frame)
        ids = frame.wrap(content)[: self.max_tokens]
        return len(ids) - (bool(ids) and ids[-1] in self._special_ids)

    def _to_inputs(
        self, rows: Sequence[list[int]], skipped: Sequence[int], first_index: int
    ) -> list[TokenizedInput]:
        """Check the ids of all rows at once: numpy costs the same for many rows as for one."""
        lengths = [len(row) for row in rows]
        for index, (length, num_skipped) in enumerate(
            zip(lengths, skipped, strict=True), first_index
        ):
            if length <= num_skipped:
                raise _nothing_to_pool(index, length)
        ends = list(accumulate(lengths))
        ids = _join(rows, ends[-1], first_index)
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            wrong = int(np.flatnonzero((ids < 0) | (ids >= self.vocab_size))[0])
            index = first_index + bisect_right(ends, wrong)
            raise InputError(
                f"input {index}: token id {ids[wrong]} is outside 0..{self.vocab_size - 1}",
                param="inputs",
                index=index,
            )
        narrow = ids.astype(np.int32)
        return [
            TokenizedInput(input_ids=narrow[end - length : end], num_skipped=num_skipped)
            for length, end, num_skipped in zip(lengths, ends, skipped, strict=True)
        ]


def _nothing_to_pool(index: int, length: int) -> InputError:
    if not length:
        return InputError(f"input {index} is empty", param="inputs", index=index)
    return InputError(
        f"input {index}: the prompt takes all of its {length} tokens and leaves none to pool;"
        " shorten the prompt",
        param="prompt",
        index=index,
    )


def _join(rows: Sequence[list[int]], num_tokens: int, first_index: int) -> npt.NDArray[np.int64]:
    """Lay rows one after another; refuse what is no token id."""
    if set(map(type, chain.from_iterable(rows))) != {int}:
        rows = [_check_ids(row, index) for index, row in enumerate(rows, first_index)]
    try:
        return np.fromiter(chain.from_iterable(rows), np.int64, num_tokens)
    except OverflowError as error:
        index, row = next(
            (index, row)
            for index, row in enumerate(rows, first_index)
            if not -(2**63) <= min(row) <= max(row) < 2**63
        )
        raise _no_ids(row, index) from error


def _cut(text: str, max_chars: int, truncate: Truncate) -> str:
    """Drop the far end of a long text at white space; a text without any there stays whole."""
    if len(text) <= max_chars:
        return text
    if truncate == "START":
        words = text[-max_chars:].split(None, 1)
        return words[1] if len(words) == 2 else text
    words = text[:max_chars].rsplit(None, 1)
    return words[0] if len(words) == 2 else text


def _check_inputs(inputs: Sequence[TextOrIds]) -> Sequence[TextOrIds]:
    """Refuse what is no list of inputs."""
    if isinstance(inputs, str) or not len(inputs):
        raise InputError("inputs must be a list of at least one text", param="inputs")
    return inputs


def _is_list(ids: Sequence[int]) -> TypeGuard[list[int]]:
    """Tell whether these could be ids; `_join` looks at them all at once."""
    return type(ids) is list


def _check_ids(ids: Sequence[int], index: int) -> list[int]:
    """Refuse what a caller gave instead of token ids."""
    try:
        array = np.asarray(ids)
        # Numpy would take True for 1; and an empty list has no type yet.
        valid = array.ndim == 1 and bool not in set(map(type, ids))
        if valid and (array.dtype.kind in "iu" or not array.size):
            checked: list[int] = array.tolist()
            return checked
    except (TypeError, ValueError, OverflowError):
        pass
    raise _no_ids(ids, index)


def _no_ids(ids: Sequence[int], index: int) -> InputError:
    return InputError(
        f"input {index} must be a text or a flat list of token ids, not {reprlib.repr(ids)}",
        param="inputs",
        index=index,
    )
