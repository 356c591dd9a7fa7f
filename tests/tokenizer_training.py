"""Trains small tokenizers of the kinds that models have; every family's is made of these parts."""

from collections.abc import Sequence

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# What stands for the bytes of characters that the vocabulary lacks.
BYTE_TOKENS = [f"<0x{code:02X}>" for code in range(256)]


def word_piece(texts: Sequence[str], specials: Sequence[str], *, lowercase: bool) -> Tokenizer:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=list(specials), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_level(
    texts: Sequence[str],
    specials: Sequence[str],
    *,
    normalizer: normalizers.Normalizer | None = None,
    words: pre_tokenizers.PreTokenizer | None = None,
    vocab_size: int = 420,
) -> Tokenizer:
    """GPT-2's kind: BPE over bytes; `words` parts a text instead of GPT-2's own pattern."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    bytes_apart = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    steps = [bytes_apart] if words is None else [words, bytes_apart]
    tokenizer.pre_tokenizer = steps[0] if words is None else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        # Without it, bytes that the texts lack would vanish.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_fallback(
    texts: Sequence[str],
    specials: Sequence[str],
    *,
    normalizer: normalizers.Normalizer | None = None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
    vocab_size: int = 420,
    limit_alphabet: int = 1000,
) -> Tokenizer:
    """Llama's and Gemma's kind: BPE over characters, and over bytes where one is unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*specials, *BYTE_TOKENS],
        limit_alphabet=limit_alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def frame(tokenizer: Tokenizer, first: str | None, last: str | None) -> Tokenizer:
    """Put special tokens around a text."""
    words = [word for word in (first, last) if word]
    single = [word for word in (first, "$A", last) if word]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=[*single, "$B:1"],
        special_tokens=[(word, tokenizer.token_to_id(word)) for word in words],
    )
    return tokenizer
