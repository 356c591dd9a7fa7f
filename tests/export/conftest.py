"""Tiny random checkpoints, in the format in which the hub publishes each family."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

Array = npt.NDArray[Any]

WIDTH, INNER, LAYERS, HEADS, POSITIONS = 32, 64, 2, 4, 128

# What the tiny tokenizers are trained on.
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


class Maker:
    """Collects random tensors under their published names.

    Weights are far from their usual start, and norms are near 1 but not at it, so that swapped,
    forgotten or transposed tensors show.
    """

    def __init__(self, seed: int) -> None:
        self.tensors: dict[str, Array] = {}
        self._random = np.random.default_rng(seed)

    def table(self, name: str, rows: int, width: int = WIDTH) -> None:
        self.tensors[f"{name}.weight"] = self._normal(rows, width)

    def linear(self, name: str, out_features: int, in_features: int) -> None:
        self.tensors[f"{name}.weight"] = self._normal(out_features, in_features)
        self.tensors[f"{name}.bias"] = self._normal(out_features)

    def bias(self, name: str, size: int) -> None:
        self.tensors[name] = self._normal(size)

    def norm(self, name: str) -> None:
        self.tensors[f"{name}.weight"] = 1 + self._normal(WIDTH) / 2
        self.tensors[f"{name}.bias"] = self._normal(WIDTH)

    def _normal(self, *shape: int) -> npt.NDArray[np.float32]:
        return self._random.normal(0, 0.2, shape).astype(np.float32)


def _bert_tensors(maker: Maker, config: Mapping[str, Any]) -> None:
    maker.table("embeddings.word_embeddings", config["vocab_size"])
    maker.table("embeddings.position_embeddings", config["max_position_embeddings"])
    maker.table("embeddings.token_type_embeddings", config["type_vocab_size"])
    if config.get("use_task_id"):
        maker.table("embeddings.task_type_embeddings", config["task_type_vocab_size"])
    maker.norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            maker.linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        maker.linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        maker.norm(f"{layer}.attention.output.LayerNorm")
        maker.linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        maker.linear(f"{layer}.output.dense", WIDTH, INNER)
        maker.norm(f"{layer}.output.LayerNorm")
    maker.linear("pooler.dense", WIDTH, WIDTH)


def _mpnet_tensors(maker: Maker, config: Mapping[str, Any]) -> None:
    maker.table("embeddings.word_embeddings", config["vocab_size"])
    maker.table("embeddings.position_embeddings", config["max_position_embeddings"])
    maker.norm("embeddings.LayerNorm")
    buckets = config["relative_attention_num_buckets"]
    maker.table("encoder.relative_attention_bias", buckets, HEADS)
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        for part in ("q", "k", "v", "o"):
            maker.linear(f"{layer}.attention.attn.{part}", WIDTH, WIDTH)
        maker.norm(f"{layer}.attention.LayerNorm")
        maker.linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        maker.linear(f"{layer}.output.dense", WIDTH, INNER)
        maker.norm(f"{layer}.output.LayerNorm")
    maker.linear("pooler.dense", WIDTH, WIDTH)


def _distilbert_tensors(maker: Maker, config: Mapping[str, Any]) -> None:
    maker.table("embeddings.word_embeddings", config["vocab_size"])
    maker.table("embeddings.position_embeddings", config["max_position_embeddings"])
    maker.norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"transformer.layer.{index}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            maker.linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        maker.norm(f"{layer}.sa_layer_norm")
        maker.linear(f"{layer}.ffn.lin1", INNER, WIDTH)
        maker.linear(f"{layer}.ffn.lin2", WIDTH, INNER)
        maker.norm(f"{layer}.output_layer_norm")


def _bert_head(maker: Maker, vocab_size: int) -> None:
    maker.linear("cls.predictions.transform.dense", WIDTH, WIDTH)
    maker.norm("cls.predictions.transform.LayerNorm")
    maker.table("cls.predictions.decoder", vocab_size)
    maker.bias("cls.predictions.bias", vocab_size)


def _roberta_head(maker: Maker, vocab_size: int) -> None:
    maker.linear("lm_head.dense", WIDTH, WIDTH)
    maker.norm("lm_head.layer_norm")
    maker.table("lm_head.decoder", vocab_size)
    maker.bias("lm_head.bias", vocab_size)


def _distilbert_head(maker: Maker, vocab_size: int) -> None:
    maker.linear("vocab_transform", WIDTH, WIDTH)
    maker.norm("vocab_layer_norm")
    maker.table("vocab_projector", vocab_size)
    maker.bias("vocab_projector.bias", vocab_size)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is published.

    Attributes:
        config: Its config.json, but for the vocabulary's size.
        prefix: What its names start with when it was saved with a head.
        head: Makes that head's tensors, which an embedding never needs.
        head_architecture: What config.json calls the model then.
        tensors: Makes the backbone's tensors.
        tokenizer: Which of the tiny tokenizers it has.
        tokenizer_config: Its tokenizer_config.json.
    """

    config: Mapping[str, object]
    prefix: str
    head: Callable[[Maker, int], None]
    head_architecture: str
    tensors: Callable[[Maker, Mapping[str, Any]], None]
    tokenizer: str
    tokenizer_config: Mapping[str, object]


_SIZES: dict[str, object] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA_SIZES: dict[str, object] = {
    **_SIZES,
    "max_position_embeddings": POSITIONS + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_BERT_WORDS: dict[str, object] = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "do_lower_case": True,
    "model_max_length": POSITIONS,
}
_ROBERTA_WORDS: dict[str, object] = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "model_max_length": POSITIONS,
}

FAMILIES = {
    "bert": Family(
        config={"architectures": ["BertModel"], "model_type": "bert", **_SIZES},
        prefix="bert.",
        head=_bert_head,
        head_architecture="BertForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="wordpiece",
        tokenizer_config={**_BERT_WORDS, "tokenizer_class": "BertTokenizer"},
    ),
    "ernie": Family(
        config={
            "architectures": ["ErnieModel"],
            "model_type": "ernie",
            **_SIZES,
            "hidden_act": "relu",
            "type_vocab_size": 4,
            "task_type_vocab_size": 3,
            "use_task_id": True,
        },
        prefix="ernie.",
        head=_bert_head,
        head_architecture="ErnieForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="wordpiece",
        tokenizer_config={**_BERT_WORDS, "tokenizer_class": "BertTokenizer"},
    ),
    "roberta": Family(
        config={"architectures": ["RobertaModel"], "model_type": "roberta", **_ROBERTA_SIZES},
        prefix="roberta.",
        head=_roberta_head,
        head_architecture="RobertaForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="bytes",
        tokenizer_config={**_ROBERTA_WORDS, "tokenizer_class": "RobertaTokenizer"},
    ),
    "xlm-roberta": Family(
        config={
            "architectures": ["XLMRobertaModel"],
            "model_type": "xlm-roberta",
            **_ROBERTA_SIZES,
        },
        prefix="roberta.",
        head=_roberta_head,
        head_architecture="XLMRobertaForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="unigram",
        tokenizer_config={**_ROBERTA_WORDS, "tokenizer_class": "XLMRobertaTokenizer"},
    ),
    "camembert": Family(
        config={
            "architectures": ["CamembertModel"],
            "model_type": "camembert",
            **_ROBERTA_SIZES,
            "bos_token_id": 5,
            "eos_token_id": 6,
        },
        prefix="roberta.",
        head=_roberta_head,
        head_architecture="CamembertForMaskedLM",
        tensors=_bert_tensors,
        tokenizer="camembert",
        tokenizer_config={**_ROBERTA_WORDS, "tokenizer_class": "CamembertTokenizer"},
    ),
    "mpnet": Family(
        config={
            "architectures": ["MPNetModel"],
            "model_type": "mpnet",
            **_ROBERTA_SIZES,
            "relative_attention_num_buckets": 32,
        },
        prefix="mpnet.",
        head=_roberta_head,
        head_architecture="MPNetForMaskedLM",
        tensors=_mpnet_tensors,
        tokenizer="mpnet",
        tokenizer_config={
            **_ROBERTA_WORDS,
            "unk_token": "[UNK]",
            "do_lower_case": True,
            "tokenizer_class": "MPNetTokenizer",
        },
    ),
    "distilbert": Family(
        config={
            "architectures": ["DistilBertModel"],
            "model_type": "distilbert",
            "dim": WIDTH,
            "hidden_dim": INNER,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "activation": "gelu",
            "max_position_embeddings": POSITIONS,
            "sinusoidal_pos_embds": False,
            "pad_token_id": 0,
        },
        prefix="distilbert.",
        head=_distilbert_head,
        head_architecture="DistilBertForMaskedLM",
        tensors=_distilbert_tensors,
        tokenizer="wordpiece",
        tokenizer_config={**_BERT_WORDS, "tokenizer_class": "DistilBertTokenizer"},
    ),
}

_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_CAMEMBERT_SPECIALS = (
    *("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"),
    *("<s>", "</s>"),
)


def _train_wordpiece(specials: Sequence[str], first: str, last: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=list(specials), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _with_ends(tokenizer, first, last)


def _train_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*_ROBERTA_SPECIALS, "<mask>"],
        # Without it, bytes that the texts lack would vanish.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
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
    return _with_ends(tokenizer, "<s>", "</s>")


def _with_ends(tokenizer: Tokenizer, first: str, last: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(word, tokenizer.token_to_id(word)) for word in (first, last)],
    )
    return tokenizer


_TRAINERS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": lambda: _train_wordpiece(_BERT_SPECIALS, "[CLS]", "[SEP]"),
    "mpnet": lambda: _train_wordpiece((*_ROBERTA_SPECIALS, "[UNK]", "<mask>"), "<s>", "</s>"),
    "bytes": _train_bytes,
    "unigram": lambda: _count_unigram(_ROBERTA_SPECIALS),
    "camembert": lambda: _count_unigram(_CAMEMBERT_SPECIALS),
}


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tiny models are faster without threads that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[[str], Tokenizer]:
    """Trains each kind of tokenizer once: wordpiece, mpnet, bytes, unigram, camembert."""
    trained: dict[str, Tokenizer] = {}

    def tiny_tokenizer(kind: str) -> Tokenizer:
        if kind not in trained:
            trained[kind] = _TRAINERS[kind]()
        return trained[kind]

    return tiny_tokenizer


_NUMPY_DTYPES: dict[str, npt.DTypeLike] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
}
_MODULE_TYPES = {
    "old": {
        "Transformer": "sentence_transformers.models.Transformer",
        "Pooling": "sentence_transformers.models.Pooling",
        "Dense": "sentence_transformers.models.Dense",
        "Normalize": "sentence_transformers.models.Normalize",
    },
    "new": {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    },
}
_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


class MakeCheckpoint:
    """Writes tiny checkpoints, each into a folder of its own that a test may damage."""

    def __init__(
        self, make_folder: Callable[[str], Path], tiny_tokenizer: Callable[[str], Tokenizer]
    ) -> None:
        self._make_folder = make_folder
        self._tiny_tokenizer = tiny_tokenizer

    def __call__(
        self,
        family: str,
        *,
        pooling: Sequence[str] | None = None,
        include_prompt: bool = True,
        heads: Sequence[tuple[int, str]] = (),
        normalize: bool = False,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        module_names: Literal["old", "new"] = "old",
        dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
        storage: Literal["safetensors", "sharded", "pickle", "sharded-pickle"] = "safetensors",
        prefixed: bool = False,
        legacy_norms: bool = False,
        config: Mapping[str, object] | None = None,
        tokenizer_config: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> Path:
        """Write one.

        Args:
            family: One of `FAMILIES`.
            pooling: Modes of a Pooling module; None writes no Sentence-Transformers files.
            include_prompt: For the Pooling module.
            heads: (out_features, torch.nn class name) of each Dense module.
            normalize: Whether there is a Normalize module.
            prompts: For config_sentence_transformers.json, as are the next two.
            default_prompt_name: Name of a prompt.
            similarity_fn_name: Word for the similarity.
            max_seq_length: For sentence_bert_config.json, as is the next one.
            do_lower_case: Whether texts are lowercased first.
            module_names: Module types and pooling settings as old or as new releases write them.
            dtype: How floating point weights are stored.
            storage: One safetensors file or two with an index, or pickles.
            prefixed: Saved as the masked language model: a prefix on each name, a head beside it.
            legacy_norms: LayerNorm's gamma and beta.
            config: More keys for config.json.
            tokenizer_config: More keys for tokenizer_config.json.
            seed: Of the weights.
        """
        folder = self._make_folder(f"tiny-{family}-")
        how = FAMILIES[family]
        tokenizer = self._tiny_tokenizer(how.tokenizer)
        tokenizer.save(str(folder / "tokenizer.json"))
        _write_json(
            folder / "tokenizer_config.json", {**how.tokenizer_config, **(tokenizer_config or {})}
        )
        settings = {**how.config, "vocab_size": tokenizer.get_vocab_size(), **(config or {})}
        if prefixed:
            settings["architectures"] = [how.head_architecture]
        _write_json(folder / "config.json", settings)
        tensors = _make_tensors(how, settings, prefixed=prefixed, seed=seed)
        if legacy_norms:
            for new, old in (("weight", "gamma"), ("bias", "beta")):
                new, old = f"LayerNorm.{new}", f"LayerNorm.{old}"
                tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
        stored = {name: tensor.astype(_NUMPY_DTYPES[dtype]) for name, tensor in tensors.items()}
        # A buffer that older releases of transformers saved along.
        prefix = how.prefix if prefixed else ""
        stored[f"{prefix}embeddings.position_ids"] = np.arange(POSITIONS)[None]
        _save(folder, stored, storage)
        if pooling is None:
            return folder

        types = _MODULE_TYPES[module_names]
        modules = [("", types["Transformer"]), ("1_Pooling", types["Pooling"])]
        _write_pooling(folder / "1_Pooling", pooling, include_prompt, module_names)
        width = WIDTH * len(pooling)
        for number, (out_features, activation) in enumerate(heads, 2):
            modules.append((f"{number}_Dense", types["Dense"]))
            _write_dense(folder / f"{number}_Dense", (out_features, width), activation, seed)
            width = out_features
        if normalize:
            modules.append((f"{len(modules)}_Normalize", types["Normalize"]))
        _write_json(
            folder / "modules.json",
            [
                {"idx": index, "name": str(index), "path": path, "type": kind}
                for index, (path, kind) in enumerate(modules)
            ],
        )
        _write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": max_seq_length, "do_lower_case": do_lower_case},
        )
        _write_json(
            folder / "config_sentence_transformers.json",
            {
                "__version__": {"sentence_transformers": "3.0.0"},
                "prompts": prompts or {},
                "default_prompt_name": default_prompt_name,
                "similarity_fn_name": similarity_fn_name,
            },
        )
        return folder


@pytest.fixture(scope="session")
def make_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[[str], Tokenizer]
) -> MakeCheckpoint:
    """Writes tiny checkpoints; see `MakeCheckpoint.__call__`."""
    return MakeCheckpoint(tmp_path_factory.mktemp, tiny_tokenizer)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _make_tensors(
    how: Family, config: Mapping[str, Any], *, prefixed: bool, seed: int
) -> dict[str, Array]:
    maker = Maker(seed)
    how.tensors(maker, config)
    if not prefixed:
        return maker.tensors
    head = Maker(seed + 1)
    how.head(head, config["vocab_size"])
    return {f"{how.prefix}{name}": one for name, one in maker.tensors.items()} | head.tensors


def _write_pooling(
    folder: Path, modes: Sequence[str], include_prompt: bool, module_names: str
) -> None:
    folder.mkdir()
    settings: dict[str, object]
    if module_names == "new":
        settings = {
            "embedding_dimension": WIDTH,
            "pooling_mode": modes[0] if len(modes) == 1 else list(modes),
            "include_prompt": include_prompt,
        }
    else:
        settings = {"word_embedding_dimension": WIDTH, "include_prompt": include_prompt}
        settings |= {flag: mode in modes for mode, flag in _POOLING_FLAGS.items()}
    _write_json(folder / "config.json", settings)


def _write_dense(folder: Path, shape: tuple[int, int], activation: str, seed: int) -> None:
    folder.mkdir()
    module = "linear" if activation == "Identity" else "activation"
    _write_json(
        folder / "config.json",
        {
            "in_features": shape[1],
            "out_features": shape[0],
            "bias": True,
            "activation_function": f"torch.nn.modules.{module}.{activation}",
        },
    )
    maker = Maker(seed + 2)
    maker.linear("linear", *shape)
    save_file(maker.tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _save(folder: Path, tensors: Mapping[str, Array], storage: str) -> None:
    names = list(tensors)
    parts = [names]
    if storage.startswith("sharded"):
        parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    stem, suffix = ("pytorch_model", "bin") if "pickle" in storage else ("model", "safetensors")
    files: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        label = f"-{number:05}-of-{len(parts):05}" if len(parts) > 1 else ""
        file = folder / f"{stem}{label}.{suffix}"
        shard = {name: tensors[name] for name in part}
        if suffix == "bin":
            _save_pickle(shard, file)
        else:
            save_file(shard, file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file.name)
    if len(parts) > 1:
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        _write_json(
            folder / f"{stem}.{suffix}.index.json",
            {"metadata": {"total_size": num_bytes}, "weight_map": files},
        )


def _save_pickle(tensors: Mapping[str, Array], file: Path) -> None:
    import torch

    def convert(array: Array) -> torch.Tensor:
        bits = array.view(np.int16) if array.dtype == ml_dtypes.bfloat16 else array
        # torch leaves the type of the argument open.
        tensor = torch.from_numpy(bits)  # pyright: ignore[reportUnknownMemberType]
        return tensor if bits is array else tensor.view(torch.bfloat16)

    torch.save({name: convert(array) for name, array in tensors.items()}, file)
