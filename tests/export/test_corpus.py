"""The probe set reaches every kind of input, and is the same every time."""

import unicodedata
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer

from embed_export.corpus import (
    MAX_PROBE_TOKENS,
    MIN_PROBE_TOKENS,
    longest_probe,
    probe_texts,
    real_texts,
)


def _words(text: str) -> int:
    return len(text.split())


def _characters(text: str) -> int:
    return len(text)


def _wordpiece(tokenizer: Tokenizer) -> Callable[[str], int]:
    return lambda text: len(tokenizer.encode(text).ids)


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 8, 64, 77, 128, 256, 512])
@pytest.mark.parametrize("count", [_words, _characters])
def test_reaches_the_maximum_and_passes_it(max_tokens: int, count: Callable[[str], int]) -> None:
    lengths = {count(text) for text in probe_texts(max_tokens, count)}
    assert max_tokens in lengths
    assert max_tokens == 1 or max_tokens - 1 in lengths
    assert max(lengths) > max_tokens


def test_has_every_length_that_a_small_model_takes(dummy_tokenizer: Tokenizer) -> None:
    count = _wordpiece(dummy_tokenizer)
    lengths = {count(text) for text in probe_texts(64, count)}
    # Special tokens alone are two.
    assert {2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64} <= lengths


def test_has_what_breaks_tokenizers_and_kernels(dummy_tokenizer: Tokenizer) -> None:
    texts = probe_texts(64, _wordpiece(dummy_tokenizer))
    everything = "".join(texts)
    categories = {unicodedata.category(character) for character in everything}
    scripts = {unicodedata.name(character, "-").split()[0] for character in everything}
    assert {"Cc", "Cf", "Co", "Mn", "So", "Zs", "Zl"} <= categories
    assert {"CYRILLIC", "GREEK", "CJK", "HIRAGANA", "HANGUL", "ARABIC", "HEBREW"} <= scripts
    assert {"DEVANAGARI", "THAI", "GEORGIAN", "ARMENIAN"} <= scripts
    assert "\0" in everything
    assert "" in texts
    everything.encode()  # No lone surrogates: JSON could not hold them.


def test_leaves_the_empty_text_out_where_it_has_no_token() -> None:
    assert "" not in probe_texts(64, _words)
    assert all(_words(text) for text in probe_texts(64, _words))


def test_is_the_same_every_time_and_has_no_text_twice() -> None:
    texts = probe_texts(256, _words)
    assert texts == probe_texts(256, _words)
    assert len(texts) == len(set(texts))
    assert 60 <= len(texts) <= 100


def test_long_models_cost_a_bounded_time() -> None:
    texts = probe_texts(131_072, _words)
    assert max(map(_words, texts)) == MAX_PROBE_TOKENS
    assert sum(map(_words, texts)) < 4 * MAX_PROBE_TOKENS


def test_large_models_are_probed_less_far_but_never_less_than_the_least() -> None:
    small, middle, large = (longest_probe(count) for count in (10**7, 4 * 10**8, 10**12))
    assert small == MAX_PROBE_TOKENS
    assert MIN_PROBE_TOKENS < middle < MAX_PROBE_TOKENS
    assert large == MIN_PROBE_TOKENS
    texts = probe_texts(131_072, _words, longest=middle)
    assert max(map(_words, texts)) == middle
    # One pass of the probes that grow costs the large model minutes, not hours.
    assert 2 * 4 * 10**8 * sum(map(_words, texts)) < 1e13


def test_a_tokenizer_that_hits_few_lengths_comes_near() -> None:
    def in_sevens(text: str) -> int:
        return 7 * len(text.split())

    lengths = {in_sevens(text) for text in probe_texts(64, in_sevens)}
    assert 63 in lengths
    assert max(lengths) > 64


def test_real_texts_are_distinct_prose_of_uneven_length() -> None:
    texts = real_texts(300)
    assert texts == real_texts(300)
    assert texts[:50] == real_texts(50)
    assert len(set(texts)) == 300
    words = sorted(map(_words, texts))
    assert words[0] <= 5
    assert words[-1] >= 150


def test_there_are_a_thousand_real_texts() -> None:
    assert len(real_texts(1000)) == 1000
