"""Every kind of tokenizer that the families use: baked, it is the one it was trained as."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from embed_export.checkpoint import open_checkpoint
from embed_export.corpus import SCRIPTS, probe_texts
from embed_export.errors import ExportError
from embed_export.tokenizer import ResolvedTokenizer, prove_tokenizer, resolve_tokenizer
from tests.export.tokenizer_kinds import KINDS, train_sentencepiece


def write(folder: Path, kind_of_model: str, **tokenizer_config: Any) -> None:
    """Write what a checkpoint has around its tokenizer."""
    config = {"model_type": kind_of_model, "architectures": ["Any"]}
    for name, content in {"config": config, "tokenizer_config": tokenizer_config}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors")


def resolve(folder: Path) -> ResolvedTokenizer:
    """Resolve a folder's tokenizer, and prove it by transformers' own."""
    checkpoint = open_checkpoint(str(folder))
    resolved = resolve_tokenizer(checkpoint)
    prove_tokenizer(resolved, checkpoint)
    return resolved


@pytest.mark.parametrize("name", KINDS)
def test_a_baked_tokenizer_is_the_trained_one(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    trained = kind.train()
    trained.save(str(tmp_path / "tokenizer.json"))
    words = {f"{role}_token": word for role, word in kind.words.items()}
    write(tmp_path, kind.model_type, tokenizer_class=kind.tokenizer_class, **words, **kind.flags)
    resolved = resolve(tmp_path)
    first, last = ([trained.token_to_id(word)] if word else [] for word in kind.ends)
    texts = probe_texts(64, resolved.count)
    assert len(texts) > 50
    for text in texts:
        content = trained.encode(text, add_special_tokens=False).ids
        assert resolved.encode(text, max_tokens=10_000) == [*first, *content, *last], text
    assert resolved.num_special_tokens == len(first) + len(last)


def test_lowercasing_is_no_wrong_conversion(tmp_path: Path) -> None:
    model = train_sentencepiece("unigram", ["<unk>", "<s>", "</s>"])
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    write(tmp_path, "camembert", tokenizer_class="CamembertTokenizer")
    settings = {"do_lower_case": True}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings), encoding="utf-8")
    resolved = resolve(tmp_path)
    assert resolved.encode("The FOX", max_tokens=64) == resolved.encode("the fox", max_tokens=64)


BYTES = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "character_coverage": 0.99,
    "remove_extra_whitespaces": False,
}


@pytest.mark.parametrize(
    ("file", "model_type", "tokenizer_class", "train", "ends"),
    [
        (
            "sentencepiece.bpe.model",
            "xlm-roberta",
            "XLMRobertaTokenizer",
            lambda: train_sentencepiece("unigram", ["<unk>", "<s>", "</s>"]),
            ("<s>", "</s>"),
        ),
        (
            "sentencepiece.bpe.model",
            "camembert",
            "CamembertTokenizer",
            lambda: train_sentencepiece("unigram", ["<unk>", "<s>", "</s>"]),
            ("<s>", "</s>"),
        ),
        (
            "tokenizer.model",
            "gemma2",
            "GemmaTokenizer",
            lambda: train_sentencepiece(
                "bpe", ["<pad>", "<eos>", "<bos>", "<unk>"], add_dummy_prefix=False, **BYTES
            ),
            ("<bos>", None),
        ),
    ],
    ids=["xlm-roberta", "camembert", "gemma"],
)
def test_a_sentencepiece_model_alone_is_converted(
    tmp_path: Path,
    file: str,
    model_type: str,
    tokenizer_class: str,
    train: Callable[[], bytes],
    ends: tuple[str, str | None],
) -> None:
    (tmp_path / file).write_bytes(train())
    flags = {"add_bos_token": True} if model_type == "gemma2" else {}
    write(tmp_path, model_type, tokenizer_class=tokenizer_class, **flags)
    resolved = resolve(tmp_path)
    baked = Tokenizer.from_str(resolved.tokenizer_json)
    original: Any = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / file))
    for text in SCRIPTS:
        pieces = [original.id_to_piece(number) for number in original.encode(text)]
        expected = [ends[0], *pieces, *([ends[1]] if ends[1] else [])]
        ids = resolved.encode(text, max_tokens=10_000)
        assert [baked.id_to_token(number) for number in ids] == expected


@pytest.mark.parametrize(
    ("file", "model_type", "tokenizer_class"),
    [
        ("tokenizer.model", "mistral", "LlamaTokenizer"),
        ("spiece.model", "xlm-roberta", "XLMRobertaTokenizer"),
    ],
)
def test_a_sentencepiece_model_that_is_converted_wrongly_is_refused(
    tmp_path: Path, file: str, model_type: str, tokenizer_class: str
) -> None:
    model = train_sentencepiece("bpe", ["<unk>", "<s>", "</s>"], **BYTES)
    (tmp_path / file).write_bytes(model)
    write(tmp_path, model_type, tokenizer_class=tokenizer_class, bos_token="<s>", eos_token="</s>")
    with pytest.raises(ExportError, match=rf"{file}.*add the model's tokenizer\.json") as caught:
        resolve(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    write(tmp_path, "llama", tokenizer_class="LlamaTokenizer")
    with pytest.raises(ExportError, match="cannot be used") as caught:
        resolve(tmp_path)
    assert "\n" not in str(caught.value)
