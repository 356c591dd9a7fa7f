"""Inputs of a request: texts and ids in their order, and every kind of bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from embed_runtime import EmbedRequest, InputError, InputTooLongError
from embed_runtime.manifest import TokenizerSpec
from embed_runtime.tokenizer import Tokenizer

IdsOf = Callable[..., list[int]]

MAX_TOKENS = 64


class TestInputs:
    def test_order_is_kept_among_texts_and_ids(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        array: Any = np.array([9, 9], np.uint16)
        request = EmbedRequest(inputs=["a", [5, 6, 7], "b", (8,), array])
        rows = [item.input_ids.tolist() for item in tokenizer.encode(request)]
        assert rows[1] == [5, 6, 7]
        assert rows[3:] == [[8], [9, 9]]
        assert rows[0] == ids_of(tokenizer, "a")
        assert rows[2] == ids_of(tokenizer, "b")

    def test_ids_are_verbatim_and_sliced(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
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

    def test_empty_text_is_legal_where_special_tokens_are_added(
        self, tokenizer: Tokenizer, ids_of: IdsOf
    ) -> None:
        assert len(ids_of(tokenizer, "")) == 2
        for text in ("", " \n"):
            with pytest.raises(InputError, match="input 0 is empty"):
                ids_of(tokenizer, text, add_special_tokens=False)

    def test_special_tokens_can_be_left_out(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
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

    def test_empty_ids(self, tokenizer: Tokenizer, ids_of: IdsOf) -> None:
        with pytest.raises(InputError, match="input 0 is empty"):
            ids_of(tokenizer, [])

    @pytest.mark.parametrize("inputs", [[], (), "a text"])
    def test_no_inputs(self, tokenizer: Tokenizer, inputs: Any) -> None:
        with pytest.raises(InputError, match="a list of at least one text"):
            tokenizer.encode(EmbedRequest(inputs=inputs))

    def test_a_text_whose_token_has_no_row_in_the_model(
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path, ids_of: IdsOf
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
