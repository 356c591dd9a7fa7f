"""Every kind of tokenizer that the families use: baked, it is the one it was trained as."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from embed_export.checkpoint import open_checkpoint
from embed_export.corpus import SCRIPTS, probe_texts
from embed_export.errors import ExportError
from embed_export.tokenizer import ResolvedTokenizer, prove_tokenizer, resolve_tokenizer

# Its types are made at run time.
MODEL_FORMAT: Any = import_module("sentencepiece.sentencepiece_model_pb2")

BYTE_TOKENS = [f"<0x{code:02X}>" for code in range(256)]
SENTENCES = [*SCRIPTS, "the quick brown fox jumps over the lazy dog, and the dog sleeps on " * 3]
# How Llama 3 and the Qwens part words from numbers and signs.
WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def word_piece(*, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return frame(tokenizer, "[CLS]", "[SEP]")


def byte_level(specials: list[str], *, words: bool, nfc: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    bytes_apart = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    tokenizer.pre_tokenizer = bytes_apart
    if words:
        split = pre_tokenizers.Split(WORDS, "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_apart])
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def byte_fallback(
    specials: list[str],
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*specials, *BYTE_TOKENS],
        limit_alphabet=60,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    # XLM-RoBERTa's map of characters is the one that SentencePiece builds in.
    built_in = MODEL_FORMAT.ModelProto.FromString(train_sentencepiece("unigram", LLAMA))
    tokenizer.normalizer = normalizers.Precompiled(built_in.normalizer_spec.precompiled_charsmap)
    steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return frame(tokenizer, "<s>", "</s>")


def frame(tokenizer: Tokenizer, first: str | None, last: str | None) -> Tokenizer:
    """Put special tokens around a text."""
    words = [word for word in (first, last) if word]
    single = [word for word in (first, "$A", last) if word]
    template = processors.TemplateProcessing(
        single=single,
        pair=[*single, "$B"],
        special_tokens=[(word, tokenizer.token_to_id(word)) for word in words],
    )
    tokenizer.post_processor = template
    return tokenizer


def roberta() -> Tokenizer:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = byte_level(specials, words=False, nfc=False)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", specials.index("</s>")), ("<s>", specials.index("<s>")), add_prefix_space=False
    )
    return tokenizer


def llama3() -> Tokenizer:
    specials = ["<|begin_of_text|>", "<|end_of_text|>"]
    tokenizer = frame(byte_level(specials, words=True, nfc=False), specials[0], None)
    assert tokenizer.post_processor
    steps = [processors.ByteLevel(trim_offsets=False), tokenizer.post_processor]
    tokenizer.post_processor = processors.Sequence(steps)
    return tokenizer


QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<unk>", "<s>", "</s>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
SPACE = normalizers.Replace(" ", "▁")
BERT_WORDS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_WORDS = {
    "pad": "<pad>",
    "unk": "<unk>",
    "cls": "<s>",
    "sep": "</s>",
    "mask": "<mask>",
    "bos": "<s>",
    "eos": "</s>",
}
LLAMA_WORDS = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
GEMMA_WORDS = {"unk": "<unk>", "bos": "<bos>", "eos": "<eos>", "pad": "<pad>"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of tokenizer, as a family publishes it.

    Attributes:
        train: Makes it.
        model_type: Of config.json, by which transformers chooses a class.
        tokenizer_class: Of tokenizer_config.json.
        words: Special tokens there, by their roles.
        ends: The tokens that must stand around a text.
        flags: What else tokenizer_config.json says.
    """

    train: Callable[[], Tokenizer]
    model_type: str
    tokenizer_class: str = "PreTrainedTokenizerFast"
    words: dict[str, str]
    ends: tuple[str | None, str | None]
    flags: dict[str, object] = field(default_factory=dict[str, object])


KINDS = {
    "bert-uncased": Kind(
        train=lambda: word_piece(lowercase=True),
        model_type="bert",
        tokenizer_class="BertTokenizer",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
        flags={"do_lower_case": True},
    ),
    "bert-cased": Kind(
        train=lambda: word_piece(lowercase=False),
        model_type="bert",
        tokenizer_class="BertTokenizer",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
        flags={"do_lower_case": False},
    ),
    "nomic": Kind(
        train=lambda: word_piece(lowercase=True),
        model_type="nomic_bert",
        tokenizer_class="BertTokenizer",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
        flags={"do_lower_case": True},
    ),
    "roberta": Kind(
        train=roberta,
        model_type="roberta",
        tokenizer_class="RobertaTokenizer",
        words=ROBERTA_WORDS,
        ends=("<s>", "</s>"),
    ),
    "modernbert": Kind(
        train=lambda: frame(
            byte_level(list(BERT_WORDS.values()), words=False, nfc=True), "[CLS]", "[SEP]"
        ),
        model_type="modernbert",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
    ),
    "gte-qwen2": Kind(
        train=lambda: byte_level(QWEN, words=True, nfc=True),
        model_type="qwen2",
        tokenizer_class="Qwen2Tokenizer",
        words={"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
        ends=(None, "<|endoftext|>"),
        flags={"add_eos_token": True},
    ),
    "qwen3-embedding": Kind(
        train=lambda: frame(byte_level(QWEN, words=True, nfc=True), None, "<|endoftext|>"),
        model_type="qwen3",
        tokenizer_class="Qwen2Tokenizer",
        words={"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        ends=(None, "<|endoftext|>"),
    ),
    "llama-3": Kind(
        train=llama3,
        model_type="llama",
        words={"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"},
        ends=("<|begin_of_text|>", None),
    ),
    "llama-2": Kind(
        train=lambda: frame(
            byte_fallback(LLAMA, None, pre_tokenizers.Metaspace(split=False)), "<s>", None
        ),
        model_type="llama",
        tokenizer_class="LlamaTokenizer",
        words=LLAMA_WORDS,
        ends=("<s>", None),
        flags={"add_bos_token": True, "add_eos_token": False, "legacy": True},
    ),
    "e5-mistral": Kind(
        train=lambda: frame(
            byte_fallback(LLAMA, normalizers.Sequence([normalizers.Prepend("▁"), SPACE]), None),
            "<s>",
            None,
        ),
        model_type="mistral",
        tokenizer_class="LlamaTokenizer",
        words=LLAMA_WORDS,
        ends=("<s>", "</s>"),
        flags={"add_bos_token": True, "add_eos_token": True, "legacy": True},
    ),
    "gemma": Kind(
        train=lambda: frame(
            byte_fallback(GEMMA, SPACE, pre_tokenizers.Split(" ", "merged_with_previous")),
            "<bos>",
            None,
        ),
        model_type="gemma2",
        tokenizer_class="GemmaTokenizer",
        words=GEMMA_WORDS,
        ends=("<bos>", "<eos>"),
        flags={"add_bos_token": True, "add_eos_token": True},
    ),
    "xlm-roberta": Kind(
        train=unigram,
        model_type="xlm-roberta",
        tokenizer_class="XLMRobertaTokenizer",
        words=ROBERTA_WORDS,
        ends=("<s>", "</s>"),
    ),
    "gte": Kind(
        train=unigram,
        model_type="gte",
        tokenizer_class="XLMRobertaTokenizerFast",
        words=ROBERTA_WORDS,
        ends=("<s>", "</s>"),
    ),
}


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


def train_sentencepiece(model_type: str, pieces: Sequence[str], **settings: Any) -> bytes:
    """Train a SentencePiece model; `pieces` are those of unk, bos, eos and pad, by their ids."""
    roles = {"<unk>": "unk", "<s>": "bos", "<bos>": "bos", "</s>": "eos", "<eos>": "eos"}
    numbers: dict[str, Any] = {f"{role}_id": -1 for role in ("bos", "eos", "pad")}
    for number, piece in enumerate(pieces):
        role = roles.get(piece, "pad")
        numbers |= {f"{role}_id": number, f"{role}_piece": piece}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type=model_type,
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **numbers,
        **settings,
    )
    return model.getvalue()


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
