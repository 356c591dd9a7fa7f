"""Tokenizers that are missing or damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Refusal = Callable[..., str]


def test_no_tokenizer(checkpoint: Path, refusal: Refusal) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    message = refusal(checkpoint)
    assert message.startswith(
        f"{checkpoint} has no tokenizer; looked for tokenizer.json; vocab.txt"
    )


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"model": {}}', b"\x00\xff"])
def test_a_damaged_tokenizer(checkpoint: Path, content: bytes, refusal: Refusal) -> None:
    (checkpoint / "tokenizer.json").write_bytes(content)
    assert "cannot be used" in refusal(checkpoint)


@pytest.mark.parametrize("model", ["WordLevel", "WordPiece"])
def test_a_tokenizer_without_words(checkpoint: Path, model: str, refusal: Refusal) -> None:
    words: dict[str, object] = {"type": model, "vocab": {}, "unk_token": "[UNK]"}
    if model == "WordPiece":
        words |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    content: dict[str, object] = {"version": "1.0", "added_tokens": [], "model": words}
    (checkpoint / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert "cannot be used" in refusal(checkpoint)


def test_a_tokenizer_cut_short(checkpoint: Path, refusal: Refusal) -> None:
    file = checkpoint / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-40])
    assert "cannot be used" in refusal(checkpoint)


def test_a_tokenizer_config_that_is_no_object(checkpoint: Path, refusal: Refusal) -> None:
    (checkpoint / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    assert "tokenizer" in refusal(checkpoint)
