"""Long texts without white space: cut in words where that is proven, and tokenized in groups."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from embed_runtime import EmbedRequest, InputError, InputTooLongError
from embed_runtime.tearing import can_tear
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import Truncate

OpenTokenizer = Callable[..., Tokenizer]
IdsOf = Callable[..., list[int]]

MAX_TOKENS = 64
# What BERT drops, splits at, takes apart, lowers or puts in order, and special tokens, also torn.
PIECES = [
    *(
        "你好",
        "东京",
        "。",
        "\uff0c",
        "the",
        "model",
        "MODEL",
        "가각",
        "é",
        "e\u0301\u0323",
        "İ",
        "ß",
    ),
    *(
        "\u0301",
        "\u0323",
        "\u302e",
        "\u200b",
        "\x00",
        "\ufb01",
        "😀",
        "x" * 40,
        "7" * 120,
        "-",
        "_",
    ),
    *("[SEP]", "[CLS]", "[SE", "EP]", "[[SEP]]", "豈", "\u3400"),
]


class WatchedLibrary:
    """The library's tokenizer, which notes how many characters each call gives it."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self.library = library
        self.num_chars: list[int] = []

    def encode_batch_fast(self, texts: Sequence[str], **options: Any) -> Any:
        self.num_chars.append(sum(map(len, texts)))
        return self.library.encode_batch_fast(list(texts), **options)

    def encode_batch(self, texts: Sequence[str], **options: Any) -> Any:
        self.num_chars.append(sum(map(len, texts)))
        return self.library.encode_batch(list(texts), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)


@pytest.fixture(scope="module")
def ours(
    dummy_tokenizer: tokenizers.Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    open_tokenizer: OpenTokenizer,
) -> tuple[Tokenizer, WatchedLibrary]:
    """Open BERT's kind of tokenizer, and watch it."""
    watched = WatchedLibrary(dummy_tokenizer)

    def from_file(_: str) -> WatchedLibrary:
        return watched

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    opener = SimpleNamespace(Tokenizer=SimpleNamespace(from_file=from_file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embed_runtime.tokenizer.tokenizers", opener)
        return open_tokenizer(dummy_tokenizer, path), watched


@pytest.mark.parametrize("truncate", ["START", "END"])
def test_chinese_costs_no_more_than_what_is_kept(
    ours: tuple[Tokenizer, WatchedLibrary], truncate: Truncate, ids_of: IdsOf
) -> None:
    tokenizer, watched = ours
    watched.num_chars.clear()
    text = "你好" * 500_000
    ids = ids_of(tokenizer, text, truncate=truncate)
    assert ids == ids_of(tokenizer, "你好" * 31)
    assert sum(watched.num_chars) < 10_000


def test_chinese_is_shortened_at_no_more_cost(ours: tuple[Tokenizer, WatchedLibrary]) -> None:
    tokenizer, watched = ours
    watched.num_chars.clear()
    assert tokenizer.shorten("你好" * 500_000, 7) == "你好你好你好你"
    assert sum(watched.num_chars) < 10_000


@pytest.mark.parametrize("text", ["你好" * 500_000, "the model " * 100_000])
def test_a_long_text_is_not_read_to_its_end_to_be_too_long_with_others(
    ours: tuple[Tokenizer, WatchedLibrary], text: str
) -> None:
    tokenizer, watched = ours
    watched.num_chars.clear()
    with pytest.raises(InputTooLongError, match="tokens together"):
        tokenizer.encode_together(EmbedRequest(inputs=["a", text]))
    assert sum(watched.num_chars) < 10_000


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.integers(1, 8),
    truncate=st.sampled_from(["START", "END"]),
    max_tokens=st.integers(3, MAX_TOKENS),
)
def test_a_torn_text_gives_the_same_tokens(
    ours: tuple[Tokenizer, WatchedLibrary],
    seed: int,
    kinds: int,
    truncate: Truncate,
    max_tokens: int,
) -> None:
    tokenizer, _ = ours
    generator = random.Random(seed)  # noqa: S311, not for cryptography
    text = "".join(generator.choices(generator.choices(PIECES, k=kinds), k=4000))
    request = EmbedRequest(inputs=[text], truncate=truncate, max_tokens=max_tokens)
    whole = tokenizer.encode_text(text, add_special_tokens=False)
    num_kept = max_tokens - 2
    kept = whole[-num_kept:] if truncate == "START" else whole[:num_kept]
    if kept:
        [item] = tokenizer.encode(request)
        assert item.input_ids.tolist()[1:-1] == kept


def test_many_texts_are_tokenized_in_groups(
    ours: tuple[Tokenizer, WatchedLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, watched = ours
    watched.num_chars.clear()
    monkeypatch.setattr("embed_runtime.framing.CHARS_AT_ONCE", 20)
    texts = ["the model", "a", "the " * 9, "a", "the model", "a text", "a"]
    items = tokenizer.encode(EmbedRequest(inputs=texts))
    assert watched.num_chars == [10, 36, 17]
    expected = [tokenizer.encode_text(text) for text in texts]
    assert [item.input_ids.tolist() for item in items] == expected


@pytest.mark.parametrize("truncate", ["START", "END", "NONE"])
@pytest.mark.parametrize("text", ["好" * 2000, "a" * 2000, " " * 2000])
def test_a_very_long_text_that_cannot_be_cut_is_refused(
    dummy_tokenizer: tokenizers.Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_tokenizer: OpenTokenizer,
    text: str,
    truncate: Truncate,
) -> None:
    library = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = open_tokenizer(library, tmp_path / "tokenizer.json")
    monkeypatch.setattr("embed_runtime.framing.MAX_PART_CHARS", 4000)
    request = EmbedRequest(inputs=["a", "a" + text], truncate=truncate)
    assert tokenizer.encode(request)[1].num_tokens < MAX_TOKENS
    side = "last" if truncate == "START" else "first"
    request = EmbedRequest(inputs=["a", "a" + text * 2], truncate=truncate)
    with pytest.raises(InputError, match=f"4001 characters.* in its {side} 4000; shorten it"):
        tokenizer.encode(request)
    with pytest.raises(InputError, match="4001 characters"):
        tokenizer.shorten("a" + text * 2, 1)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", normalizers.Lowercase()),
        ("pre_tokenizer", pre_tokenizers.Whitespace()),
        ("pre_tokenizer", None),
        ("model", models.BPE()),
        ("model", models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=300)),
    ],
)
def test_other_tokenizers_get_whole_words(
    dummy_tokenizer: tokenizers.Tokenizer, part: str, value: object
) -> None:
    library = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
    assert can_tear(library)
    setattr(library, part, value)
    assert not can_tear(library)


@pytest.mark.parametrize(
    ("added", "is_safe"),
    [
        (["[OTHER]"], True),
        (["xyzx"], False),
        (["abc", "bcd"], False),
        (["你"], False),
        (["x" + "y" * 32], False),
    ],
)
def test_added_tokens_that_could_shift_others_keep_words_whole(
    dummy_tokenizer: tokenizers.Tokenizer, added: list[str], is_safe: bool
) -> None:
    library = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
    # The stub of this method has a list of nothing in particular.
    library.add_tokens(added)  # pyright: ignore[reportUnknownMemberType]
    assert can_tear(library) is is_safe
