"""Tokenizers of ours, opened from the library's, and the ids they give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from embed_runtime import EmbedRequest
from embed_runtime.manifest import TokenizerSpec
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import TextOrIds

OpenTokenizer = Callable[..., Tokenizer]


@pytest.fixture(scope="session")
def open_tokenizer() -> OpenTokenizer:
    """Saves a tokenizer of the library's and opens it as ours, with 64 tokens at most."""

    def open_tokenizer(library: tokenizers.Tokenizer, path: Path, **options: Any) -> Tokenizer:
        library.save(str(path))
        spec = TokenizerSpec(
            vocab_size=library.get_vocab_size(),
            pad_token_id=0,
            num_special_tokens=library.num_special_tokens_to_add(is_pair=False),
        )
        return Tokenizer(path, spec=spec, max_tokens=64, **options)

    return open_tokenizer


@pytest.fixture
def tokenizer(
    dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path, open_tokenizer: OpenTokenizer
) -> Tokenizer:
    return open_tokenizer(dummy_tokenizer, tmp_path / "tokenizer.json")


@pytest.fixture(scope="session")
def ids_of() -> Callable[..., list[int]]:
    """Gives the ids of one input; keywords are the request's."""

    def ids_of(
        tokenizer: Tokenizer, text: TextOrIds, *, prompt: str = "", **fields: Any
    ) -> list[int]:
        [item] = tokenizer.encode(EmbedRequest(inputs=[text], **fields), prompt=prompt)
        assert item.input_ids.dtype == np.int32
        ids: list[int] = item.input_ids.tolist()
        return ids

    return ids_of
