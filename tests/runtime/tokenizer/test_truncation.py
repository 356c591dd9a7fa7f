"""Texts that are too long: cut as the library cuts them, at little cost, or refused."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from embed_runtime import EmbedRequest, InputError, InputTooLongError
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import Truncate

IdsOf = Callable[..., list[int]]
OpenTokenizer = Callable[..., Tokenizer]

MAX_TOKENS = 64

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "Embedding models turn texts into vectors; near vectors mean near texts.",
    "Größe, naïve café; 東京都 你好 世界 мир и труд. 12345 67 + 890 = ?",
    "def main() -> None:\n    print('hello')\n\n\treturn None",
]

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]


def _byte_level() -> tokenizers.Tokenizer:
    """BPE over bytes, as in RoBERTa."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    library.train_from_iterator(CORPUS, trainer)
    return library


def _unigram() -> tokenizers.Tokenizer:
    """Unigram over words that start with a mark, as in XLM-RoBERTa."""
    library = tokenizers.Tokenizer(models.Unigram())
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    return library


def _whole_text() -> tokenizers.Tokenizer:
    """BPE that joins words, as in Gemma: nothing splits the text before merging."""
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    library.normalizer = normalizers.Replace(" ", "_")
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIALS, show_progress=False)
    library.train_from_iterator(CORPUS, trainer)
    return library


LIBRARIES: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte_level": _byte_level,
    "unigram": _unigram,
    "whole_text": _whole_text,
}


@pytest.fixture(scope="module", params=["dummy", *LIBRARIES])
def pair(
    request: pytest.FixtureRequest,
    dummy_tokenizer: tokenizers.Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    open_tokenizer: OpenTokenizer,
) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Give a tokenizer of ours, and the library's to compare with."""
    if request.param == "dummy":
        library = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
    else:
        library = LIBRARIES[request.param]()
        library.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            special_tokens=[(one, library.token_to_id(one)) for one in ("<s>", "</s>")],
        )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return open_tokenizer(library, path), library


class CountingLibrary:
    """The library's tokenizer, which notes how much text it gets."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self.library = library
        self.num_chars = 0

    def encode_batch_fast(self, texts: Sequence[str], **options: Any) -> Any:
        self.num_chars += sum(map(len, texts))
        return self.library.encode_batch_fast(list(texts), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)


def expected_ids(library: Any, text: str, max_tokens: int, truncate: Truncate) -> list[int]:
    """Let the library tokenize all of the text and truncate it, as transformers does."""
    direction = "left" if truncate == "START" else "right"
    library.enable_truncation(max_tokens, direction=direction)
    ids: list[int] = library.encode_batch_fast([text])[0].ids
    library.no_truncation()
    return ids


PIECES = [
    *(word for text in CORPUS for word in text.split(" ")),
    *(" ", "  ", "\n", "\t", "\xa0", "\u3000", "\x1c", "\u200b", "\u0301", "e\u0301", "ﬁ", "😀"),
    *("1234567890" * 7, "a" * 120, "x-y_z" * 30, "<s>", "</s>", "[SEP]", "你好" * 40, "İ", "Σ"),
]


def long_text(seed: int, num_pieces: int, joiner: str) -> str:
    generator = random.Random(seed)  # noqa: S311, not for cryptography
    return joiner.join(generator.choices(PIECES, k=num_pieces))


class TestTruncation:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        num_pieces=st.integers(0, 3000),
        joiner=st.sampled_from([" ", "", ", ", "\n"]),
        max_tokens=st.integers(2, MAX_TOKENS),
        truncate=st.sampled_from(["END", "START"]),
    )
    def test_equals_tokenizing_everything(
        self,
        pair: tuple[Tokenizer, tokenizers.Tokenizer],
        seed: int,
        num_pieces: int,
        joiner: str,
        max_tokens: int,
        truncate: Truncate,
        ids_of: IdsOf,
    ) -> None:
        ours, library = pair
        text = long_text(seed, num_pieces, joiner)
        found = ids_of(ours, text, max_tokens=max_tokens, truncate=truncate)
        assert found == expected_ids(library, text, max_tokens, truncate)

    @pytest.mark.parametrize("truncate", ["END", "START"])
    @pytest.mark.parametrize(
        "text",
        [
            " " * 50_000 + "word" + " " * 50_000 + "end",
            "\u200b\x00" * 20_000 + "word",
            "a" * 50_000,
            "a" * 50_000 + " end",
            "start " + "a" * 50_000,
            "\u0301" * 20_000,
            "你" * 20_000,
        ],
        ids=["spaces", "dropped", "one word", "word end", "start word", "accents", "han"],
    )
    def test_texts_that_shrink(
        self,
        pair: tuple[Tokenizer, tokenizers.Tokenizer],
        text: str,
        truncate: Truncate,
        ids_of: IdsOf,
    ) -> None:
        ours, library = pair
        assert ids_of(ours, text, truncate=truncate) == expected_ids(
            library, text, MAX_TOKENS, truncate
        )

    @pytest.mark.parametrize("truncate", ["END", "START"])
    def test_a_word_torn_where_the_tokenizer_does_not_split(
        self,
        tokenizer: Tokenizer,
        dummy_tokenizer: tokenizers.Tokenizer,
        truncate: Truncate,
        ids_of: IdsOf,
    ) -> None:
        # Python takes \x1c for white space, BERT drops it; eight characters make one token.
        for num_shifts in range(64):
            shifts, words = "thr\x1cough " * num_shifts, "numb\x1cer " * 400
            text = shifts + words if truncate == "END" else words + shifts
            assert ids_of(tokenizer, text, truncate=truncate) == expected_ids(
                dummy_tokenizer, text, MAX_TOKENS, truncate
            )

    @pytest.mark.parametrize("truncate", ["END", "START", "NONE"])
    def test_ten_megabytes_cost_little(
        self,
        dummy_tokenizer: tokenizers.Tokenizer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        truncate: Truncate,
        ids_of: IdsOf,
        open_tokenizer: OpenTokenizer,
    ) -> None:
        counting = CountingLibrary(dummy_tokenizer)

        def from_file(_: str) -> CountingLibrary:
            return counting

        opener = SimpleNamespace(from_file=from_file)
        monkeypatch.setattr("embed_runtime.tokenizer.tokenizers", SimpleNamespace(Tokenizer=opener))
        tokenizer = open_tokenizer(dummy_tokenizer, tmp_path / "tokenizer.json")
        counting.num_chars = 0
        text = "here is the text; " * 600_000
        if truncate == "NONE":
            with pytest.raises(InputTooLongError):
                ids_of(tokenizer, text, truncate=truncate)
        else:
            assert len(ids_of(tokenizer, text, truncate=truncate)) == MAX_TOKENS
        assert 0 < counting.num_chars < 5000

    def test_worked_example(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        # [CLS] a b c d e f [SEP] of the API contract, section 8.2.
        whole = ids_of(tokenizer, "a b c d e f")
        first, *content, last = whole
        assert ids_of(tokenizer, "a b c d e f", max_tokens=4) == [first, *content[:2], last]
        start = ids_of(tokenizer, "a b c d e f", max_tokens=4, truncate="START")
        assert start == [first, *content[-2:], last]
        assert ids_of(tokenizer, "a b c d e f", max_tokens=8, truncate="NONE") == whole

    def test_fewer_tokens_than_special_ones(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        first, *_, last = ids_of(tokenizer, "word")
        assert ids_of(tokenizer, "word", max_tokens=1) == [first]
        assert ids_of(tokenizer, "word", max_tokens=1, truncate="START") == [last]
        assert ids_of(tokenizer, "word", max_tokens=2) == [first, last]

    def test_none_refuses_and_says_which(self, tokenizer: Tokenizer) -> None:
        request = EmbedRequest(inputs=["a", "a b c d"], truncate="NONE", max_tokens=5)
        with pytest.raises(InputTooLongError, match="maximum context length is 5 tokens") as caught:
            tokenizer.encode(request, first_index=10)
        assert (caught.value.param, caught.value.index) == ("input_tokens", 11)
        assert "input 11 has at least 6 tokens" in str(caught.value)

    @pytest.mark.parametrize("max_tokens", [0, -1, MAX_TOKENS + 1])
    def test_refuses_limits_out_of_range(
        self, tokenizer: Tokenizer, max_tokens: int, ids_of: IdsOf
    ) -> None:
        with pytest.raises(InputError, match=f"max_tokens={max_tokens} is outside 1..64"):
            ids_of(tokenizer, "a", max_tokens=max_tokens)

    def test_refuses_unknown_words_for_truncate(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        with pytest.raises(InputError, match="truncate='end' must be END, START or NONE"):
            ids_of(tokenizer, "a", truncate="end")


def test_no_special_tokens(tmp_path: Path, ids_of: IdsOf, open_tokenizer: OpenTokenizer) -> None:
    ours = open_tokenizer(_byte_level(), tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="input 0 is empty"):
        ids_of(ours, "")
    whole = ids_of(ours, "the quick brown fox")
    assert ids_of(ours, "the quick brown fox", max_tokens=2) == whole[:2]
