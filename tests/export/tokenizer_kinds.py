"""Every kind of tokenizer that the families use, trained small: `KINDS`, and SentencePiece."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import sentencepiece
from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from embed_export.corpus import SCRIPTS
from tests.tokenizer_training import byte_fallback, byte_level, frame, word_piece

# Its types are made at run time.
MODEL_FORMAT: Any = import_module("sentencepiece.sentencepiece_model_pb2")

SENTENCES = [*SCRIPTS, "the quick brown fox jumps over the lazy dog, and the dog sleeps on " * 3]
# How Llama 3 and the Qwens part words from numbers and signs.
WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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


def bert(*, lowercase: bool) -> Tokenizer:
    specials = list(BERT_WORDS.values())
    return frame(word_piece(SENTENCES, specials, lowercase=lowercase), "[CLS]", "[SEP]")


def gpt(specials: list[str], *, words: bool, nfc: bool) -> Tokenizer:
    return byte_level(
        SENTENCES,
        specials,
        normalizer=normalizers.NFC() if nfc else None,
        words=pre_tokenizers.Split(WORDS, "isolated") if words else None,
    )


def fallback(
    specials: list[str],
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
) -> Tokenizer:
    return byte_fallback(
        SENTENCES,
        specials,
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        vocab_size=600,
        limit_alphabet=60,
    )


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


def roberta() -> Tokenizer:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = gpt(specials, words=False, nfc=False)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", specials.index("</s>")), ("<s>", specials.index("<s>")), add_prefix_space=False
    )
    return tokenizer


def llama3() -> Tokenizer:
    specials = ["<|begin_of_text|>", "<|end_of_text|>"]
    tokenizer = frame(gpt(specials, words=True, nfc=False), specials[0], None)
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
        train=lambda: bert(lowercase=True),
        model_type="bert",
        tokenizer_class="BertTokenizer",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
        flags={"do_lower_case": True},
    ),
    "bert-cased": Kind(
        train=lambda: bert(lowercase=False),
        model_type="bert",
        tokenizer_class="BertTokenizer",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
        flags={"do_lower_case": False},
    ),
    "nomic": Kind(
        train=lambda: bert(lowercase=True),
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
            gpt(list(BERT_WORDS.values()), words=False, nfc=True), "[CLS]", "[SEP]"
        ),
        model_type="modernbert",
        words=BERT_WORDS,
        ends=("[CLS]", "[SEP]"),
    ),
    "gte-qwen2": Kind(
        train=lambda: gpt(QWEN, words=True, nfc=True),
        model_type="qwen2",
        tokenizer_class="Qwen2Tokenizer",
        words={"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
        ends=(None, "<|endoftext|>"),
        flags={"add_eos_token": True},
    ),
    "qwen3-embedding": Kind(
        train=lambda: frame(gpt(QWEN, words=True, nfc=True), None, "<|endoftext|>"),
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
            fallback(LLAMA, None, pre_tokenizers.Metaspace(split=False)), "<s>", None
        ),
        model_type="llama",
        tokenizer_class="LlamaTokenizer",
        words=LLAMA_WORDS,
        ends=("<s>", None),
        flags={"add_bos_token": True, "add_eos_token": False, "legacy": True},
    ),
    "e5-mistral": Kind(
        train=lambda: frame(
            fallback(LLAMA, normalizers.Sequence([normalizers.Prepend("▁"), SPACE]), None),
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
            fallback(GEMMA, SPACE, pre_tokenizers.Split(" ", "merged_with_previous")),
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
