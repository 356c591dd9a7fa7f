"""Prompts in front of a text: what is cut, and which tokens are left out of pooling."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from embed_runtime import EmbedRequest, InputError
from embed_runtime.tokenizer import Tokenizer

IdsOf = Callable[..., list[int]]
OpenTokenizer = Callable[..., Tokenizer]


class TestPrompts:
    def test_is_plain_text_in_front(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        assert ids_of(tokenizer, "word", prompt="query: ") == ids_of(tokenizer, "query: word")
        assert ids_of(tokenizer, "end", prompt="be") == ids_of(tokenizer, "beend")

    def test_is_not_for_token_ids(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        assert ids_of(tokenizer, [7, 8], prompt="query: ") == [7, 8]

    def test_end_keeps_the_prompt(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        whole = ids_of(tokenizer, "query: a b c d e f")
        cut = ids_of(tokenizer, "a b c d e f", prompt="query: ", max_tokens=6)
        assert cut == [*whole[:5], whole[-1]]

    @pytest.mark.parametrize("num_words", [20, 20_000])
    def test_start_cuts_behind_the_prompt(
        self, tokenizer: Tokenizer, num_words: int, ids_of: IdsOf
    ) -> None:
        text = "word " * num_words + "the end"
        found = ids_of(tokenizer, text, prompt="query: ", max_tokens=6, truncate="START")
        whole = ids_of(tokenizer, "query: word the end")
        assert found == [*whole[:3], *whole[-3:]]  # [CLS] query : | the end [SEP]

    def test_start_drops_a_prompt_that_leaves_no_room(
        self, tokenizer: Tokenizer, ids_of: IdsOf
    ) -> None:
        found = ids_of(tokenizer, "a b c", prompt="the query is ", max_tokens=5, truncate="START")
        assert found == ids_of(tokenizer, "a b c")

    def test_skipped_tokens_are_counted_as_sentence_transformers_does(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path, open_tokenizer: OpenTokenizer
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
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path, open_tokenizer: OpenTokenizer
    ) -> None:
        skipping = open_tokenizer(dummy_tokenizer, tmp_path / "s.json", include_prompt=False)
        request = EmbedRequest(inputs=["a", "word"], max_tokens=3)
        with pytest.raises(InputError, match="leaves none to pool") as caught:
            skipping.encode(request, prompt="the query is ")
        assert (caught.value.param, caught.value.index) == ("prompt", 0)
