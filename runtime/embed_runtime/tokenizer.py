"""Texts to token ids: prompts, truncation, and the checks of what a caller may send."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers

from embed_runtime.errors import BundleError, InputError, InputTooLongError
from embed_runtime.framing import CHARS_PER_TOKEN, SURPLUS_TOKENS, Frame, cut_text, group_texts
from embed_runtime.manifest import PromptMarks, TokenizerSpec
from embed_runtime.own_prompts import OwnPromptIds, find_own_prompt
from embed_runtime.tearing import can_tear
from embed_runtime.token_ids import check_ids, check_inputs, is_list, to_inputs
from embed_runtime.types import EmbedRequest, TokenizedInput


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
        self,
        path: Path,
        *,
        spec: TokenizerSpec,
        max_tokens: int,
        include_prompt: bool = True,
        prompt_marks: PromptMarks | None = None,
    ) -> None:
        """Read `tokenizer.json`.

        Args:
            path: The file, already checked against the manifest.
            spec: What the manifest says about it.
            max_tokens: Longest input the model takes.
            include_prompt: Whether the tokens of a prompt are pooled with the others.
            prompt_marks: How inputs show that they bring their own prompt.

        Raises:
            BundleError: The file is no tokenizer, or not the one that the manifest describes.
        """
        self.max_tokens = max_tokens
        self.vocab_size = spec.vocab_size
        self._include_prompt = include_prompt
        self._prompt_marks = prompt_marks
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
        self._can_tear = can_tear(self._library)
        added = self._library.get_added_tokens_decoder()
        self._special_ids = frozenset(number for number, token in added.items() if token.special)
        self._own_prompt_ids: OwnPromptIds | None = None
        if prompt_marks is not None:
            self._own_prompt_ids = OwnPromptIds(prompt_marks, self._encode_plainly)

    def encode(
        self, request: EmbedRequest, *, prompt: str = "", first_index: int = 0
    ) -> list[TokenizedInput]:
        """Tokenize the inputs of a request, in order.

        Texts get the special tokens around, and the prompt in front unless they bring their own;
        token ids are used verbatim.
        An overlong text loses tokens at its end (END) or at its front, behind the prompt (START);
        the special tokens stay.

        Args:
            request: Of which `inputs`, `truncate`, `max_tokens`, `add_special_tokens` are read.
            prompt: Put in front of every text, without a separator.
            first_index: Position of the first input, for error messages.

        Raises:
            InputTooLongError: An input is too long and `truncate` is NONE.
            InputError: There is no input; or one is empty, of a wrong type, not Unicode or
                outside the vocabulary; or `max_tokens` is out of range; or an overlong text has
                no place to cut it at.
        """
        inputs = check_inputs(request.inputs)
        frame = self._frame(request)
        texts = [
            self._check_text(self.put_in_front(prompt, one), index)
            for index, one in enumerate(inputs, first_index)
            if isinstance(one, str)
        ]
        fronts = [find_own_prompt(text, self._prompt_marks) or prompt for text in texts]
        num_skipped = {front: self._count_skipped(front, frame) for front in set(fronts)}
        contents = zip(texts, fronts, self._encode_texts(texts, frame), strict=True)
        rows: list[list[int]] = []
        skipped: list[int] = []
        for index, one in enumerate(inputs, first_index):
            if isinstance(one, str):
                text, front, content = next(contents)
                rows.append(self._fit_text(content, text, front, frame, index))
                # Without one it may stand behind special tokens that a chat template wrote.
                skipped.append(num_skipped[front] if front else self._count_own(rows[-1]))
            else:
                ids = one if is_list(one) else check_ids(one, index)
                rows.append(frame.cut(ids, index))
                skipped.append(self._count_own(rows[-1]))
        return to_inputs(rows, skipped, vocab_size=self.vocab_size, first_index=first_index)

    def put_in_front(self, prompt: str, text: str) -> str:
        """Give a text its prompt, unless it brings one."""
        return text if find_own_prompt(text, self._prompt_marks) else prompt + text

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
        for index, one in enumerate(check_inputs(request.inputs)):
            if isinstance(one, str):
                text = self._check_text(prompt + one if index == 0 else one, index)
                rows += self._encode_texts([text], frame)  # more than fits, where it is too long
            else:
                rows.append(check_ids(one, index))
        spans = [
            item.input_ids for item in to_inputs(rows, [0] * len(rows), vocab_size=self.vocab_size)
        ]
        counts = np.array([len(ids) for ids in spans], np.int64)
        counts[0] += len(frame.first)
        counts[-1] += len(frame.last)
        whole = np.concatenate([frame.first, *spans, frame.last]).astype(np.int32)
        if len(whole) > self.max_tokens:
            raise InputTooLongError(
                f"the inputs have at least {len(whole)} tokens together, and the maximum context"
                f" length is {self.max_tokens} tokens; send fewer at once",
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
        ids = self._encode_plainly(text)
        return [*self._first, *ids, *self._last] if add_special_tokens else ids

    def shorten(self, text: str, max_tokens: int) -> str:
        """Cut a text behind its first tokens; special tokens are not counted.

        Raises:
            InputError: The text is not Unicode, or so long without white space that it cannot be
                cut at little cost.
        """
        self._check_text(text, 0)
        num_chars = CHARS_PER_TOKEN * (max_tokens + SURPLUS_TOKENS)
        while True:
            part = cut_text(text, num_chars, "END", anywhere=self._can_tear)
            encoding = self._library.encode_batch([part], add_special_tokens=False)[0]
            surplus = len(encoding.ids) - max_tokens
            if surplus >= (SURPLUS_TOKENS if len(part) < len(text) else 1):
                return part[: encoding.offsets[max_tokens - 1][1]]
            if len(part) == len(text):
                return text
            num_chars *= 4

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
        # Unlike `decode` of the library this lets other threads run.
        [text] = self._library.decode_batch([ids], skip_special_tokens=skip_special_tokens)
        return text

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Give the vocabulary's entry for each id; an empty text where it has none.

        Raises:
            InputError: An id is outside the vocabulary.
        """
        self._check_vocabulary(ids)
        return [self._library.id_to_token(one) or "" for one in ids]

    def _encode_plainly(self, text: str) -> list[int]:
        return self._library.encode_batch_fast([text], add_special_tokens=False)[0].ids

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

    def _frame(self, request: EmbedRequest) -> Frame:
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
        return Frame(
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

    def _encode_texts(self, texts: Sequence[str], frame: Frame) -> Iterator[list[int]]:
        """Yield the token ids of each text, without special tokens.

        Of a text that is far too long these are only the tokens at the end that is kept: those
        that can be in the result, and `SURPLUS_TOKENS` more.
        """
        if not texts:
            return
        max_chars = CHARS_PER_TOKEN * frame.enough
        tears = self._can_tear
        parts = [cut_text(text, max_chars, frame.truncate, anywhere=tears) for text in texts]
        encodings = (
            encoding
            for group in group_texts(parts)
            for encoding in self._library.encode_batch_fast(group, add_special_tokens=False)
        )
        for text, part, encoding in zip(texts, parts, encodings, strict=True):
            ids, num_chars = encoding.ids, max_chars
            while len(part) < len(text) and len(ids) < frame.enough:
                num_chars *= 4
                part = cut_text(text, num_chars, frame.truncate, anywhere=tears, most=max_chars)
                ids = self._library.encode_batch_fast([part], add_special_tokens=False)[0].ids
            yield ids

    def _fit_text(
        self, content: list[int], text: str, prompt: str, frame: Frame, index: int
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
        part = text[: num_chars + CHARS_PER_TOKEN * SURPLUS_TOKENS]
        encoding = self._library.encode_batch([part], add_special_tokens=False)[0]
        ends = [end for _, end in encoding.offsets]
        return encoding.ids[: sum(end <= num_chars for end in ends)]

    def _count_skipped(self, prompt: str, frame: Frame) -> int:
        """Count the leading tokens that pooling leaves out, as Sentence-Transformers counts them.

        That is the prompt tokenized alone, without the special token at its end if it has one
        (`Transformer._get_prompt_length` in sentence-transformers 6.2).
        """
        if self._include_prompt or not prompt:
            return 0
        [content] = self._encode_texts([self._check_text(prompt, 0)], frame)
        ids = frame.wrap(content)[: self.max_tokens]
        return len(ids) - (bool(ids) and ids[-1] in self._special_ids)

    def _count_own(self, ids: list[int]) -> int:
        """Count the leading ids that pooling leaves out because they are their own prompt."""
        if self._own_prompt_ids is None:
            return 0
        num_first = len(self._first)
        if ids[:num_first] != self._first:
            num_first = 0
        num_own = self._own_prompt_ids.count(ids[num_first:])
        return num_first + num_own if num_own else 0
