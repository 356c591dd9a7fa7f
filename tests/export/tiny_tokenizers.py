"""Tiny tokenizers of every kind that BERT's kin have."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.tokenizer_training import byte_level, frame, word_piece

TEXTS = (
    "the quick brown fox jumps over the lazy dog and runs away into the forest",
    "retrieval needs vectors that are right, always the same, whatever stands beside them",
    "query: how do plants make sugar? passage: with light, water and air.",
    "def add(first, second): return first + second  # 12345 67890",
    "un café très bon, une tarte à la crème, l'été à Besançon, où es-tu?",
    "Grüße aus München: schöne Straße, große Bäume, kühler Fluß",
    "Старый мост через реку ведёт в тихий город",
    "今日は良い天気です。春眠不觉晓 处处闻啼鸟。",
    "نهر هادئ يجري نحو البحر",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다",
    "emoji 🙂 👍🏽 👩‍👩‍👧 🇩🇪 and signs … “quotes” € ½",
)

_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_CAMEMBERT_SPECIALS = (
    *("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"),
    *("<s>", "</s>"),
)


def _wordpiece(specials: Sequence[str], first: str, last: str) -> Tokenizer:
    return frame(word_piece(TEXTS, specials, lowercase=True), first, last)


def _bytes() -> Tokenizer:
    tokenizer = byte_level(TEXTS, [*_ROBERTA_SPECIALS, "<mask>"], vocab_size=400)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def _count_unigram(specials: Sequence[str]) -> Tokenizer:
    """Take the commonest parts of words; the library's own training differs from run to run."""
    words = [f"\u2581{word}" for text in TEXTS for word in text.split()]
    parts = Counter(
        word[start:end]
        for word in words
        for start in range(len(word))
        for end in range(start + 1, min(start + 5, len(word)) + 1)
    )
    total = parts.total()
    # Every single character, so that all of the texts can be spelled.
    kept = [part for part in sorted(parts, key=lambda part: (-parts[part], part)) if len(part) == 1]
    kept += [part for part, _ in parts.most_common(300) if len(part) > 1]
    vocab = [(word, 0.0) for word in specials]
    vocab += [(part, math.log(parts[part] / total)) for part in kept]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=specials.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    # The stub of this method has a list of nothing in particular.
    tokenizer.add_special_tokens([*specials, "<mask>"])  # pyright: ignore[reportUnknownMemberType]
    return frame(tokenizer, "<s>", "</s>")


TRAINERS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": lambda: _wordpiece(_BERT_SPECIALS, "[CLS]", "[SEP]"),
    "mpnet": lambda: _wordpiece((*_ROBERTA_SPECIALS, "[UNK]", "<mask>"), "<s>", "</s>"),
    "bytes": _bytes,
    "unigram": lambda: _count_unigram(_ROBERTA_SPECIALS),
    "camembert": lambda: _count_unigram(_CAMEMBERT_SPECIALS),
}
