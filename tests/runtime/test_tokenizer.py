"""Texts to token ids: against the library's own truncation, and for every kind of bad input."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from embed_runtime import BundleError, EmbedRequest, InputError, InputTooLongError
from embed_runtime.manifest import TokenizerSpec
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import TextOrIds, Truncate

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


def open_tokenizer(library: tokenizers.Tokenizer, path: Path, **options: Any) -> Tokenizer:
    library.save(str(path))
    spec = TokenizerSpec(
        vocab_size=library.get_vocab_size(),
        pad_token_id=0,
        num_special_tokens=library.num_special_tokens_to_add(is_pair=False),
    )
    return Tokenizer(path, spec=spec, max_tokens=options.pop("max_tokens", MAX_TOKENS), **options)


@pytest.fixture(scope="module", params=["dummy", *LIBRARIES])
def pair(
    request: pytest.FixtureRequest,
    dummy_tokenizer: tokenizers.Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
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


@pytest.fixture
def tokenizer(dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path) -> Tokenizer:
    return open_tokenizer(dummy_tokenizer, tmp_path / "tokenizer.json")


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


def ids_of(tokenizer: Tokenizer, text: TextOrIds, *, prompt: str = "", **fields: Any) -> list[int]:
    [item] = tokenizer.encode(EmbedRequest(inputs=[text], **fields), prompt=prompt)
    assert item.input_ids.dtype == np.int32
    ids: list[int] = item.input_ids.tolist()
    return ids


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
        self, pair: tuple[Tokenizer, tokenizers.Tokenizer], text: str, truncate: Truncate
    ) -> None:
        ours, library = pair
        assert ids_of(ours, text, truncate=truncate) == expected_ids(
            library, text, MAX_TOKENS, truncate
        )

    @pytest.mark.parametrize("truncate", ["END", "START"])
    def test_a_word_torn_where_the_tokenizer_does_not_split(
        self, tokenizer: Tokenizer, dummy_tokenizer: tokenizers.Tokenizer, truncate: Truncate
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

    def test_worked_example(self, tokenizer: Tokenizer) -> None:
        # [CLS] a b c d e f [SEP] of the API contract, section 8.2.
        whole = ids_of(tokenizer, "a b c d e f")
        first, *content, last = whole
        assert ids_of(tokenizer, "a b c d e f", max_tokens=4) == [first, *content[:2], last]
        start = ids_of(tokenizer, "a b c d e f", max_tokens=4, truncate="START")
        assert start == [first, *content[-2:], last]
        assert ids_of(tokenizer, "a b c d e f", max_tokens=8, truncate="NONE") == whole

    def test_fewer_tokens_than_special_ones(self, tokenizer: Tokenizer) -> None:
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
    def test_refuses_limits_out_of_range(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        with pytest.raises(InputError, match=f"max_tokens={max_tokens} is outside 1..64"):
            ids_of(tokenizer, "a", max_tokens=max_tokens)

    def test_refuses_unknown_words_for_truncate(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(InputError, match="truncate='end' must be END, START or NONE"):
            ids_of(tokenizer, "a", truncate="end")


class TestPrompts:
    def test_is_plain_text_in_front(self, tokenizer: Tokenizer) -> None:
        assert ids_of(tokenizer, "word", prompt="query: ") == ids_of(tokenizer, "query: word")
        assert ids_of(tokenizer, "end", prompt="be") == ids_of(tokenizer, "beend")

    def test_is_not_for_token_ids(self, tokenizer: Tokenizer) -> None:
        assert ids_of(tokenizer, [7, 8], prompt="query: ") == [7, 8]

    def test_end_keeps_the_prompt(self, tokenizer: Tokenizer) -> None:
        whole = ids_of(tokenizer, "query: a b c d e f")
        cut = ids_of(tokenizer, "a b c d e f", prompt="query: ", max_tokens=6)
        assert cut == [*whole[:5], whole[-1]]

    @pytest.mark.parametrize("num_words", [20, 20_000])
    def test_start_cuts_behind_the_prompt(self, tokenizer: Tokenizer, num_words: int) -> None:
        text = "word " * num_words + "the end"
        found = ids_of(tokenizer, text, prompt="query: ", max_tokens=6, truncate="START")
        whole = ids_of(tokenizer, "query: word the end")
        assert found == [*whole[:3], *whole[-3:]]  # [CLS] query : | the end [SEP]

    def test_start_drops_a_prompt_that_leaves_no_room(self, tokenizer: Tokenizer) -> None:
        found = ids_of(tokenizer, "a b c", prompt="the query is ", max_tokens=5, truncate="START")
        assert found == ids_of(tokenizer, "a b c")

    def test_skipped_tokens_are_counted_as_sentence_transformers_does(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path
    ) -> None:
        pooled = open_tokenizer(dummy_tokenizer, tmp_path / "pooled.json")
        skipping = open_tokenizer(dummy_tokenizer, tmp_path / "s.json", include_prompt=False)
        request = EmbedRequest(inputs=["word", [7, 8]])
        assert [item.num_skipped for item in pooled.encode(request, prompt="query: ")] == [0, 0]
        # [CLS] query : and not the [SEP] behind them.
        assert [item.num_skipped for item in skipping.encode(request, prompt="query: ")] == [3, 0]
        assert [item.num_skipped for item in skipping.encode(request)] == [0, 0]
        bare = EmbedRequest(inputs=["word"], add_special_tokens=False)
        assert skipping.encode(bare, prompt="query: ")[0].num_skipped == 2

    def test_a_prompt_that_leaves_nothing_to_pool_is_refused(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path
    ) -> None:
        skipping = open_tokenizer(dummy_tokenizer, tmp_path / "s.json", include_prompt=False)
        request = EmbedRequest(inputs=["a", "word"], max_tokens=3)
        with pytest.raises(InputError, match="leaves none to pool") as caught:
            skipping.encode(request, prompt="the query is ")
        assert (caught.value.param, caught.value.index) == ("prompt", 0)


class TestInputs:
    def test_order_is_kept_among_texts_and_ids(self, tokenizer: Tokenizer) -> None:
        array: Any = np.array([9, 9], np.uint16)
        request = EmbedRequest(inputs=["a", [5, 6, 7], "b", (8,), array])
        rows = [item.input_ids.tolist() for item in tokenizer.encode(request)]
        assert rows[1] == [5, 6, 7]
        assert rows[3:] == [[8], [9, 9]]
        assert rows[0] == ids_of(tokenizer, "a")
        assert rows[2] == ids_of(tokenizer, "b")

    def test_ids_are_verbatim_and_sliced(self, tokenizer: Tokenizer) -> None:
        ids = list(range(100))
        assert ids_of(tokenizer, ids) == ids[:MAX_TOKENS]
        assert ids_of(tokenizer, ids, truncate="START", max_tokens=3) == [97, 98, 99]
        with pytest.raises(InputTooLongError, match="at least 100 tokens"):
            ids_of(tokenizer, ids, truncate="NONE")

    def test_ids_are_copied(self, tokenizer: Tokenizer) -> None:
        given_ids: Any = np.array([5, 6], np.int32)
        [item] = tokenizer.encode(EmbedRequest(inputs=[given_ids]))
        given_ids[0] = 9
        assert item.input_ids.tolist() == [5, 6]

    def test_empty_text_is_legal_where_special_tokens_are_added(self, tokenizer: Tokenizer) -> None:
        assert len(ids_of(tokenizer, "")) == 2
        for text in ("", " \n"):
            with pytest.raises(InputError, match="input 0 is empty"):
                ids_of(tokenizer, text, add_special_tokens=False)

    def test_special_tokens_can_be_left_out(self, tokenizer: Tokenizer) -> None:
        whole = ids_of(tokenizer, "the end")
        assert ids_of(tokenizer, "the end", add_special_tokens=False) == whole[1:-1]

    @pytest.mark.parametrize("text", ["\ud800", "fine \udfff end", "é\ud83d"])
    def test_lone_surrogates(self, tokenizer: Tokenizer, text: str) -> None:
        with pytest.raises(InputError, match=r"input 1 is not valid Unicode.*'\\ud") as caught:
            tokenizer.encode(EmbedRequest(inputs=["a", text]))
        assert caught.value.index == 1
        str(caught.value).encode()

    @pytest.mark.parametrize("wrong", [-1, 10**6, 2**31, 2**40])
    def test_ids_outside_the_vocabulary(self, tokenizer: Tokenizer, wrong: int) -> None:
        request = EmbedRequest(inputs=[[1], [2, wrong]])
        with pytest.raises(InputError, match=f"input 1: token id {wrong} is outside 0") as caught:
            tokenizer.encode(request)
        assert (caught.value.param, caught.value.index) == ("inputs", 1)

    @pytest.mark.parametrize(
        "wrong",
        [
            None,
            5,
            1.5,
            b"bytes",
            {"a": 1},
            ["a"],
            [1, "a"],
            [1.0],
            [True],
            [1, True],
            [[1]],
            [[1], [1, 2]],
            [None],
            [2**70],
            np.ones((2, 2), np.int32),
            np.ones(2, np.float32),
            np.ones(2, np.bool_),
        ],
        ids=repr,
    )
    def test_wrong_types(self, tokenizer: Tokenizer, wrong: Any) -> None:
        with pytest.raises(InputError, match="input 1 must be a text or a flat list") as caught:
            tokenizer.encode(EmbedRequest(inputs=["a", wrong]))
        assert caught.value.index == 1
        assert len(str(caught.value)) < 300
        with pytest.raises(InputError, match="input 0 must be a text or a flat list"):
            tokenizer.encode(EmbedRequest(inputs=[wrong]))

    def test_empty_ids(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(InputError, match="input 0 is empty"):
            ids_of(tokenizer, [])

    @pytest.mark.parametrize("inputs", [[], (), "a text"])
    def test_no_inputs(self, tokenizer: Tokenizer, inputs: Any) -> None:
        with pytest.raises(InputError, match="a list of at least one text"):
            tokenizer.encode(EmbedRequest(inputs=inputs))

    def test_a_text_whose_token_has_no_row_in_the_model(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokenizer.json"
        dummy_tokenizer.save(str(path))
        largest = dummy_tokenizer.token_to_id("vector")
        assert largest is not None
        spec = TokenizerSpec(vocab_size=largest, pad_token_id=0)
        small = Tokenizer(path, spec=spec, max_tokens=MAX_TOKENS)
        assert ids_of(small, "the")
        with pytest.raises(InputError, match=f"token id {largest} is outside"):
            ids_of(small, "the vector")


class TestFile:
    def test_truncation_and_padding_in_the_file_are_ignored(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path
    ) -> None:
        library: Any = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
        library.enable_padding(length=32)
        library.enable_truncation(3)
        ours = open_tokenizer(library, tmp_path / "tokenizer.json")
        assert len(ids_of(ours, "a b c d")) == 6

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "Alien"}}'])
    def test_not_a_tokenizer(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "tokenizer.json"
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
            Tokenizer(path, spec=TokenizerSpec(vocab_size=9, pad_token_id=0), max_tokens=8)

    def test_other_special_tokens_than_the_manifest_says(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokenizer.json"
        dummy_tokenizer.save(str(path))
        spec = TokenizerSpec(vocab_size=9, pad_token_id=0, num_special_tokens=1)
        with pytest.raises(BundleError, match="adds 2 special tokens, the manifest says 1"):
            Tokenizer(path, spec=spec, max_tokens=8)

    def test_a_text_that_is_framed_twice(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path
    ) -> None:
        library = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
        library.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        with pytest.raises(BundleError, match="fixed prefix and suffix"):
            open_tokenizer(library, tmp_path / "tokenizer.json")

    def test_no_special_tokens(self, tmp_path: Path) -> None:
        ours = open_tokenizer(_byte_level(), tmp_path / "tokenizer.json")
        with pytest.raises(InputError, match="input 0 is empty"):
            ids_of(ours, "")
        whole = ids_of(ours, "the quick brown fox")
        assert ids_of(ours, "the quick brown fox", max_tokens=2) == whole[:2]
