"""Tiny tokenizers of every kind that decoders have, with their tokenizer_config.json."""

from collections.abc import Callable

from tokenizers import Tokenizer, normalizers, pre_tokenizers

from tests.tokenizer_training import byte_fallback, byte_level, frame

TEXTS = (
    "the quick brown fox jumps over the lazy dog and runs away into the forest",
    "Instruct: Given a web search query, retrieve passages\nQuery: how do plants make sugar?",
    "def add(first, second): return first + second  # 12345 67890",
    "un café très bon, une tarte à la crème; Grüße aus München: schöne Straße",
    "Старый мост через реку ведёт в тихий город",
    "今日は良い天気です。春眠不觉晓 نهر هادئ 빠른 갈색 여우 🙂 👍🏽",
)


def _qwen(last: str | None) -> Tokenizer:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(TEXTS, specials, normalizer=normalizers.NFC())
    return frame(tokenizer, None, last) if last else tokenizer


def _llama() -> Tokenizer:
    marks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return frame(byte_fallback(TEXTS, ["<unk>", "<s>", "</s>"], normalizer=marks), "<s>", None)


def _gemma() -> Tokenizer:
    tokenizer = byte_fallback(
        TEXTS,
        ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        normalizer=normalizers.Replace(" ", "▁"),
        pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
    )
    return frame(tokenizer, "<bos>", "<eos>")


TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], dict[str, object]]] = {
    "qwen": (
        lambda: _qwen(None),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "add_eos_token": True,
        },
    ),
    "qwen-eos": (
        lambda: _qwen("<|endoftext|>"),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
    ),
    "llama": (
        _llama,
        {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "</s>",
            "add_bos_token": True,
            "add_eos_token": True,
        },
    ),
    "gemma": (
        _gemma,
        {
            "tokenizer_class": "GemmaTokenizer",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "add_bos_token": True,
            "add_eos_token": True,
        },
    ),
}
