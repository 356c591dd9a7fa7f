"""Tiny random decoders in the format in which the hub publishes each family."""

# transformers and torch leave the types of what they give open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from embed_export import export, measure
from embed_export.config import ExportConfig
from embed_export.dialects import write_graphs
from embed_export.source import Source, read_source
from embed_runtime.engines import BuildSpec, BuiltEngine, get_backend
from embed_runtime.manifest import Dialect

Array = npt.NDArray[Any]
Settings = dict[str, Any]
Rows = Sequence[Sequence[int]]
# Gives the [T, D] token vectors of one row of ids.
Original = Callable[[Sequence[int]], Array]

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, POSITIONS = 32, 64, 2, 4, 2, 128

TEXTS = (
    "the quick brown fox jumps over the lazy dog and runs away into the forest",
    "Instruct: Given a web search query, retrieve passages\nQuery: how do plants make sugar?",
    "def add(first, second): return first + second  # 12345 67890",
    "un café très bon, une tarte à la crème; Grüße aus München: schöne Straße",
    "Старый мост через реку ведёт в тихий город",
    "今日は良い天気です。春眠不觉晓 نهر هادئ 빠른 갈색 여우 🙂 👍🏽",
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is published.

    Attributes:
        config: Its config.json, but for the vocabulary's size.
        tokenizer: Which of the tiny tokenizers it has.
        prefix: What its names start with.
        has_lm_head: Whether the language head lies beside the backbone.
        qkv_bias: Whether queries, keys and values have biases.
        output_bias: Whether the attention's output has one.
        mlp_bias: Whether the feed-forward has.
        qk_norm: Whether queries and keys have norms.
        sandwich: Whether there are four norms a layer, their weights stored less one.
        head: Width of a linear layer beside the backbone.
        native: What transformers' own class needs changed in the config; None removes a key.
    """

    config: Mapping[str, object]
    tokenizer: str
    prefix: str = ""
    has_lm_head: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich: bool = False
    head: int | None = None
    native: Mapping[str, object] = field(default_factory=dict[str, object])


_SIZES: dict[str, object] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": INNER,
    "hidden_act": "silu",
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_LLAMA3: dict[str, object] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_QWEN: dict[str, object] = {
    **_SIZES,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "sliding_window": 32768,
    "max_window_layers": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GEMMA: dict[str, object] = {
    **_SIZES,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 24,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}

FAMILIES = {
    "llama": Family(
        config={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **_SIZES,
            "rope_scaling": _LLAMA3,
            "pretraining_tp": 1,
        },
        tokenizer="llama",
        prefix="model.",
        has_lm_head=True,
    ),
    "llama-biases": Family(
        config={
            "architectures": ["LlamaModel"],
            "model_type": "llama",
            **_SIZES,
            "num_key_value_heads": HEADS,
            "attention_bias": True,
            "mlp_bias": True,
        },
        tokenizer="llama",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
    "mistral": Family(
        config={
            "architectures": ["MistralModel"],
            "model_type": "mistral",
            **_SIZES,
            "sliding_window": 8,
        },
        tokenizer="llama",
    ),
    "gritlm": Family(
        config={
            "architectures": ["GritLM"],
            "model_type": "mistral",
            "auto_map": {"AutoModel": "modeling_gritlm7b.MistralModel"},
            **_SIZES,
            "sliding_window": 8,
        },
        tokenizer="llama",
        prefix="model.",
        has_lm_head=True,
        native={"is_causal": False, "sliding_window": None},
    ),
    "llama-bidirec": Family(
        config={
            "architectures": ["LlamaBidirectionalModel"],
            "model_type": "llama_bidirec",
            "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
            **_SIZES,
            "rope_scaling": _LLAMA3,
            "pooling": "avg",
            "temperature": 0.02,
        },
        tokenizer="llama",
        native={"model_type": "llama", "is_causal": False},
    ),
    "qwen2": Family(
        config={"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **_QWEN},
        tokenizer="qwen",
        prefix="model.",
        has_lm_head=True,
        qkv_bias=True,
    ),
    "qwen2-both-ways": Family(
        config={
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"},
            **_QWEN,
            "is_causal": False,
        },
        tokenizer="qwen",
        prefix="model.",
        has_lm_head=True,
        qkv_bias=True,
    ),
    "qwen2-sliding": Family(
        config={
            "architectures": ["Qwen2Model"],
            "model_type": "qwen2",
            **_QWEN,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
        tokenizer="qwen",
        qkv_bias=True,
    ),
    "qwen2-sliding-both-ways": Family(
        config={
            "architectures": ["Qwen2Model"],
            "model_type": "qwen2",
            **_QWEN,
            "use_sliding_window": True,
            "sliding_window": 5,
            "is_causal": False,
        },
        tokenizer="qwen",
        qkv_bias=True,
    ),
    "qwen3": Family(
        config={
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **_QWEN,
            "head_dim": 16,
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
        tokenizer="qwen-eos",
        qk_norm=True,
    ),
    "voyage-qwen3": Family(
        config={
            "architectures": ["VoyageQwen3BidirectionalEmbedModel"],
            "model_type": "qwen3",
            "auto_map": {"AutoModel": "modeling_voyage.VoyageQwen3BidirectionalEmbedModel"},
            **_QWEN,
            "head_dim": 16,
            "attention_bias": False,
            "use_bidirectional_attention": True,
            "num_labels": 48,
        },
        tokenizer="qwen-eos",
        prefix="model.",
        qk_norm=True,
        head=48,
        native={"is_causal": False, "num_labels": None},
    ),
    "gemma2": Family(
        config={
            "architectures": ["Gemma2Model"],
            "model_type": "gemma2",
            **_GEMMA,
            "sliding_window": 6,
            # Low enough for the tiny model's scores to feel it.
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 30.0,
            "cache_implementation": "hybrid",
        },
        tokenizer="gemma",
        sandwich=True,
    ),
    "gemma3-text": Family(
        config={
            "architectures": ["Gemma3TextModel"],
            "model_type": "gemma3_text",
            **_GEMMA,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "layer_types": ["sliding_attention", "full_attention"],
            "_sliding_window_pattern": 2,
            "sliding_window": 12,
            "use_bidirectional_attention": True,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        tokenizer="gemma",
        sandwich=True,
        qk_norm=True,
    ),
    "gemma3-causal": Family(
        config={
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            **{key: value for key, value in _GEMMA.items() if key != "rope_theta"},
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "sliding_window_pattern": 2,
            "sliding_window": 6,
        },
        tokenizer="gemma",
        prefix="model.",
        sandwich=True,
        qk_norm=True,
    ),
}


def _make_tensors(family: Family, config: Settings, seed: int) -> dict[str, Array]:
    """Make random tensors under their published names, far from their usual start."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}

    def normal(*shape: int) -> Array:
        return random.normal(0, 0.2, shape).astype(np.float32)

    def norm(name: str, width: int = config["hidden_size"]) -> None:
        offset = 0 if family.sandwich else 1
        tensors[f"{family.prefix}{name}.weight"] = offset + normal(width)

    def linear(name: str, out_features: int, in_features: int, *, bias: bool) -> None:
        tensors[f"{family.prefix}{name}.weight"] = normal(out_features, in_features)
        if bias:
            tensors[f"{family.prefix}{name}.bias"] = normal(out_features)

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // num_heads
    table = normal(config["vocab_size"], hidden)
    tensors[f"{family.prefix}embed_tokens.weight"] = table
    for index in range(config["num_hidden_layers"]):
        layer = f"layers.{index}"
        for part, heads in (("q", num_heads), ("k", num_kv_heads), ("v", num_kv_heads)):
            name = f"{layer}.self_attn.{part}_proj"
            linear(name, heads * head_dim, hidden, bias=family.qkv_bias)
        name = f"{layer}.self_attn.o_proj"
        linear(name, hidden, num_heads * head_dim, bias=family.output_bias)
        if family.qk_norm:
            norm(f"{layer}.self_attn.q_norm", head_dim)
            norm(f"{layer}.self_attn.k_norm", head_dim)
        for part in ("gate", "up"):
            linear(f"{layer}.mlp.{part}_proj", inner, hidden, bias=family.mlp_bias)
        linear(f"{layer}.mlp.down_proj", hidden, inner, bias=family.mlp_bias)
        norm(f"{layer}.input_layernorm")
        norm(f"{layer}.post_attention_layernorm")
        if family.sandwich:
            norm(f"{layer}.pre_feedforward_layernorm")
            norm(f"{layer}.post_feedforward_layernorm")
    norm("norm")
    if family.has_lm_head:
        tensors["lm_head.weight"] = normal(config["vocab_size"], hidden)
    if family.head:
        tensors["linear.weight"] = normal(family.head, hidden)
    return tensors


def _train(
    model: models.BPE, normalizer: Any, pre_tokenizer: Any, specials: list[str]
) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    bytes_apart = isinstance(pre_tokenizer, pre_tokenizers.ByteLevel)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if bytes_apart else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _with_template(tokenizer: Tokenizer, first: str | None, last: str | None) -> Tokenizer:
    specials = [word for word in (first, last) if word]
    single = " ".join(word for word in (first, "$A", last) if word)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=f"{single} $B:1",
        special_tokens=[(word, tokenizer.token_to_id(word)) for word in specials],
    )
    return tokenizer


_BYTE_TOKENS = [f"<0x{code:02X}>" for code in range(256)]


def _train_qwen(last: str | None) -> Tokenizer:
    tokenizer = _train(
        models.BPE(),
        normalizers.NFC(),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _with_template(tokenizer, None, last) if last else tokenizer


def _train_llama() -> Tokenizer:
    tokenizer = _train(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
        ["<unk>", "<s>", "</s>", *_BYTE_TOKENS],
    )
    return _with_template(tokenizer, "<s>", None)


def _train_gemma() -> Tokenizer:
    tokenizer = _train(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        normalizers.Replace(" ", "▁"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *_BYTE_TOKENS],
    )
    return _with_template(tokenizer, "<bos>", "<eos>")


_TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], dict[str, object]]] = {
    "qwen": (
        lambda: _train_qwen(None),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "add_eos_token": True,
        },
    ),
    "qwen-eos": (
        lambda: _train_qwen("<|endoftext|>"),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
    ),
    "llama": (
        _train_llama,
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
        _train_gemma,
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


@dataclass(frozen=True, kw_only=True)
class TinyDecoder:
    """A checkpoint on disk, with what it was made from.

    Attributes:
        folder: The checkpoint.
        family: How it is published.
        config: Its config.json.
        tensors: Its tensors, float32.
    """

    folder: Path
    family: Family
    config: Settings
    tensors: Mapping[str, Array]

    def original(self) -> Original:
        """Load transformers' own model, by another way than the exporter's."""
        changes = self.family.native
        # transformers completes nested objects in place.
        settings: Settings = deepcopy({**self.config, **changes})
        for key in ("auto_map", *changes):
            if settings.get(key) is None and key != "sliding_window":
                settings.pop(key, None)
        config: Any = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
        # The other implementation has no soft cap.
        config._attn_implementation = "eager" if self.family.sandwich else "sdpa"
        create: Any = transformers.AutoModel.from_config
        model = create(config, dtype=torch.float32).eval()
        prefix = self.family.prefix
        state = {
            name.removeprefix(prefix): torch.from_numpy(tensor)
            for name, tensor in self.tensors.items()
            if name.startswith(prefix) and name not in {"lm_head.weight", "linear.weight"}
        }
        model.load_state_dict(state, strict=True)
        head = self.tensors.get("linear.weight")

        def token_vectors(row: Sequence[int]) -> Array:
            with torch.inference_mode():
                outputs = model(input_ids=torch.tensor([row]))
            states: Array = outputs.last_hidden_state[0].numpy()
            return states if head is None else states @ head.T

        return token_vectors


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tiny models are faster without threads that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def families() -> dict[str, Family]:
    """How each family is published, by a name for tests; more than one for some recipes."""
    return FAMILIES


@pytest.fixture(scope="module")
def fast_exports() -> Iterator[None]:
    """Build engines in this process, and time them hardly at all."""

    def build_here(backend: str, spec: BuildSpec) -> BuiltEngine:
        return get_backend(backend).build(spec)

    def no_texts(limit: int) -> list[str]:
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "build_engine", build_here)
        patch.setattr(measure, "_PASS_SECONDS", 0.01)
        # Reading the standard library for texts takes longer than anything else here.
        patch.setattr(measure, "real_texts", no_texts)
        yield


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Source]]:
    """Writes the graphs of a checkpoint, and nothing else of a bundle."""

    def write(checkpoint: Path, **settings: Any) -> tuple[Path, Source]:
        folder = tmp_path_factory.mktemp("graphs")
        source = read_source(ExportConfig(model=str(checkpoint), **settings))
        write_graphs(folder, source)
        return folder, source

    return write


@pytest.fixture(scope="session")
def run_graph() -> Callable[..., list[Array]]:
    """Runs one dialect of a bundle over rows of ids; gives the [T, D] token vectors of each row.

    `left` pads the rows of the padded dialect at their front.
    """

    def run_graph(folder: Path, dialect: Dialect, rows: Rows, *, left: bool = False) -> list[Array]:
        onnxruntime: Any = import_module("onnxruntime")
        session = onnxruntime.InferenceSession(folder / "graphs" / f"{dialect}.onnx")
        wanted = {one.name for one in session.get_inputs()}
        packed = dialect != "padded"
        inputs = _pack(rows) if packed else _pad(rows, left=left)
        feeds = {name: array for name, array in inputs.items() if name in wanted}
        [states] = session.run(["token_embeddings"], feeds)
        if not packed:
            states = np.asarray(states)[inputs["attention_mask"] == 1]
        ends = np.cumsum([len(row) for row in rows])
        return np.split(np.asarray(states), ends[:-1])

    return run_graph


def _pack(rows: Rows) -> dict[str, Array]:
    width = max(len(row) for row in rows)
    slots = [(index, slot) for index, row in enumerate(rows) for slot in range(len(row))]
    pad_index = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.float32)
    for token, (index, slot) in enumerate(slots):
        pad_index[index, slot] = token
        mask[index, slot] = 1
    return {
        "input_ids": np.concatenate([np.asarray(row, np.int64) for row in rows]),
        "position_ids": np.array([slot for _, slot in slots], np.int64),
        "pad_index": pad_index,
        "unpad_index": np.array([index * width + slot for index, slot in slots], np.int64),
        "attention_mask": mask,
        "pool_mask": mask,
    }


def _pad(rows: Rows, *, left: bool) -> dict[str, Array]:
    width = max(len(row) for row in rows)
    input_ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        start = width - len(row) if left else 0
        input_ids[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = 1
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "pool_mask": mask.astype(np.float32),
    }


@pytest.fixture(scope="session")
def make_decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyDecoder]:
    """Writes tiny decoders: `make_decoder("qwen3", config={...})`.

    `config` replaces keys of config.json. `pooling` is the mode of a Pooling module, followed by
    Dense modules of the widths in `dense` and a Normalize module; without it there are no
    Sentence-Transformers files. `extra` tensors lie beside the model's, those in `without` do not.
    """
    trained: dict[str, Tokenizer] = {}

    def make(
        name: str,
        *,
        config: Settings | None = None,
        pooling: str | None = None,
        dense: tuple[int, ...] = (),
        extra: Mapping[str, Array] | None = None,
        without: Sequence[str] = (),
        seed: int = 0,
    ) -> TinyDecoder:
        family = FAMILIES[name]
        folder = tmp_path_factory.mktemp(f"tiny-{name}-")
        train, tokenizer_config = _TOKENIZERS[family.tokenizer]
        if family.tokenizer not in trained:
            trained[family.tokenizer] = train()
        tokenizer = trained[family.tokenizer]
        tokenizer.save(str(folder / "tokenizer.json"))
        settings: Settings = {**family.config, "vocab_size": tokenizer.get_vocab_size()}
        settings |= config or {}
        _write_json(folder / "config.json", settings)
        _write_json(
            folder / "tokenizer_config.json", {**tokenizer_config, "model_max_length": 1 << 40}
        )
        tensors = _make_tensors(family, settings, seed)
        stored = {**tensors, **(extra or {})}
        stored = {
            key: tensor.astype(np.float32) for key, tensor in stored.items() if key not in without
        }
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        if pooling:
            _write_modules(folder, family.head or settings["hidden_size"], pooling, dense)
        return TinyDecoder(folder=folder, family=family, config=settings, tensors=tensors)

    return make


def _write_modules(folder: Path, width: int, pooling: str, dense: tuple[int, ...]) -> None:
    package = "sentence_transformers.models"
    modules = [("", f"{package}.Transformer"), ("1_Pooling", f"{package}.Pooling")]
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, f"pooling_mode_{pooling}": True},
    )
    random = np.random.default_rng(1)
    for number, out_features in enumerate(dense, 2):
        path = folder / f"{number}_Dense"
        path.mkdir()
        _write_json(
            path / "config.json",
            {
                "in_features": width,
                "out_features": out_features,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        weight = random.normal(0, 0.2, (out_features, width)).astype(np.float32)
        save_file({"linear.weight": weight}, path / "model.safetensors", metadata={"format": "pt"})
        modules.append((path.name, f"{package}.Dense"))
        width = out_features
    modules.append((f"{len(modules)}_Normalize", f"{package}.Normalize"))
    _write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": kind}
            for index, (path, kind) in enumerate(modules)
        ],
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
