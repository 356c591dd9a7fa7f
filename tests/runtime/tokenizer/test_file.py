"""The file tokenizer.json: what is ignored in it, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import processors

from embed_runtime import BundleError
from embed_runtime.manifest import TokenizerSpec
from embed_runtime.tokenizer import Tokenizer

IdsOf = Callable[..., list[int]]
OpenTokenizer = Callable[..., Tokenizer]


class TestFile:
    def test_truncation_and_padding_in_the_file_are_ignored(
        self,
        dummy_tokenizer: tokenizers.Tokenizer,
        tmp_path: Path,
        ids_of: IdsOf,
        open_tokenizer: OpenTokenizer,
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
        self, dummy_tokenizer: tokenizers.Tokenizer, tmp_path: Path, open_tokenizer: OpenTokenizer
    ) -> None:
        library = tokenizers.Tokenizer.from_str(dummy_tokenizer.to_str())
        library.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        with pytest.raises(BundleError, match="fixed prefix and suffix"):
            open_tokenizer(library, tmp_path / "tokenizer.json")
