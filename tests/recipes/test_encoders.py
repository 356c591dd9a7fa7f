"""Encoders with rotary positions against transformers' own classes, from published formats."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from embed_export.build import build_engine
from embed_export.config import ExportConfig
from embed_export.dialects import write_graphs
from embed_export.errors import ExportError
from embed_export.export import export_bundle
from embed_export.probe import read_reference
from embed_export.reference import run_original
from embed_export.source import Source, read_source
from embed_runtime import EmbedRequest, Runtime
from embed_runtime.engines import BuildSpec, get_backend
from embed_runtime.manifest import Dialect, Dimensions

Array = npt.NDArray[Any]
Settings = dict[str, Any]
Tensors = dict[str, Array]

# Their types are loose.
torch: Any = import_module("torch")
transformers: Any = import_module("transformers")
onnxruntime: Any = import_module("onnxruntime")

HIDDEN, INNER, HEADS, POSITIONS = 32, 64, 4, 256
LONG = 8192
# Rows of every batch: alone, in company of other lengths, and a row of two tokens.
BATCHES = ([9], [2], [40, 3, 17], [5, 40], [31, 32, 33, 2])


class Maker:
    """Collects random tensors, far from their usual start, so that swapped ones show."""

    def __init__(self, seed: int) -> None:
        self.tensors: Tensors = {}
        self._random = np.random.default_rng(seed)

    def table(self, name: str, *shape: int) -> None:
        self.tensors[name] = self._normal(*shape)

    def linear(self, name: str, out_features: int, in_features: int, *, bias: bool) -> None:
        self.table(f"{name}.weight", out_features, in_features)
        if bias:
            self.table(f"{name}.bias", out_features)

    def norm(self, name: str, width: int, *, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = 1 + self._normal(width) / 2
        if bias:
            self.table(f"{name}.bias", width)

    def _normal(self, *shape: int) -> Array:
        return self._random.normal(0, 0.2, shape).astype(np.float32)


def _modernbert(maker: Maker, config: Settings) -> None:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    maker.table("embeddings.tok_embeddings.weight", config["vocab_size"], hidden)
    maker.norm("embeddings.norm", hidden, bias=False)
    for index in range(config["num_hidden_layers"]):
        name = f"layers.{index}"
        if index:
            maker.norm(f"{name}.attn_norm", hidden, bias=False)
        maker.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=False)
        maker.linear(f"{name}.attn.Wo", hidden, hidden, bias=False)
        maker.norm(f"{name}.mlp_norm", hidden, bias=False)
        maker.linear(f"{name}.mlp.Wi", 2 * inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.Wo", hidden, inner, bias=False)
    maker.norm("final_norm", hidden, bias=False)


def _words(maker: Maker, config: Settings, hidden: int) -> None:
    maker.table("embeddings.word_embeddings.weight", config["vocab_size"], hidden)
    if config["type_vocab_size"]:
        maker.table("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)


def _gte(maker: Maker, config: Settings) -> None:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    _words(maker, config, hidden)
    maker.norm("embeddings.LayerNorm", hidden)
    for index in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{index}"
        maker.linear(f"{name}.attention.qkv_proj", 3 * hidden, hidden, bias=True)
        maker.linear(f"{name}.attention.o_proj", hidden, hidden, bias=True)
        maker.norm(f"{name}.attn_ln", hidden)
        maker.linear(f"{name}.mlp.up_gate_proj", 2 * inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.down_proj", hidden, inner, bias=True)
        maker.norm(f"{name}.mlp_ln", hidden)


def _new(maker: Maker, config: Settings) -> None:
    _gte(maker, config)
    maker.tensors = {f"new.{name}": tensor for name, tensor in maker.tensors.items()}
    maker.linear("classifier", 1, config["hidden_size"], bias=True)


def _nomic(maker: Maker, config: Settings) -> None:
    hidden, inner = config["n_embd"], config["n_inner"]
    _words(maker, config, hidden)
    maker.norm("emb_ln", hidden)
    for index in range(config["n_layer"]):
        name = f"encoder.layers.{index}"
        maker.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=False)
        maker.linear(f"{name}.attn.out_proj", hidden, hidden, bias=False)
        maker.norm(f"{name}.norm1", hidden)
        maker.linear(f"{name}.mlp.fc11", inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.fc12", inner, hidden, bias=False)
        maker.linear(f"{name}.mlp.fc2", hidden, inner, bias=False)
        maker.norm(f"{name}.norm2", hidden)


def _nomic_moe(maker: Maker, config: Settings) -> None:
    hidden, inner, experts = config["n_embd"], config["n_inner"], config["num_experts"]
    _words(maker, config, hidden)
    maker.norm("emb_ln", hidden)
    for index in range(config["n_layer"]):
        name = f"encoder.layers.{index}"
        maker.linear(f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=True)
        maker.linear(f"{name}.attn.out_proj", hidden, hidden, bias=True)
        maker.norm(f"{name}.norm1", hidden)
        if index % config["moe_every_n_layers"] == 1:
            maker.linear(f"{name}.mlp.router.layer", experts, hidden, bias=False)
            maker.table(f"{name}.mlp.experts.mlp.w1", experts * inner, hidden)
            maker.table(f"{name}.mlp.experts.mlp.w2", experts * inner, hidden)
            maker.table(f"{name}.mlp.experts.bias", hidden)
        else:
            maker.linear(f"{name}.mlp.fc1", inner, hidden, bias=True)
            maker.linear(f"{name}.mlp.fc2", hidden, inner, bias=True)
        maker.norm(f"{name}.norm2", hidden)


def _jina(maker: Maker, config: Settings) -> None:
    hidden, inner, rank = config["hidden_size"], config["intermediate_size"], config["lora_rank"]
    tasks = len(config["lora_adaptations"])

    def table(name: str, rows: int) -> None:
        maker.table(f"{name}.parametrizations.weight.original", rows, hidden)
        maker.table(f"{name}.parametrizations.weight.0.lora_A", tasks, rows, rank)
        maker.table(f"{name}.parametrizations.weight.0.lora_B", tasks, rank, hidden)

    def linear(name: str, out_features: int, in_features: int) -> None:
        maker.table(f"{name}.parametrizations.weight.original", out_features, in_features)
        maker.table(f"{name}.parametrizations.weight.0.lora_A", tasks, rank, in_features)
        maker.table(f"{name}.parametrizations.weight.0.lora_B", tasks, out_features, rank)
        maker.table(f"{name}.bias", out_features)

    table("roberta.embeddings.word_embeddings", config["vocab_size"])
    table("roberta.embeddings.token_type_embeddings", config["type_vocab_size"])
    maker.norm("roberta.emb_ln", hidden)
    for index in range(config["num_hidden_layers"]):
        name = f"roberta.encoder.layers.{index}"
        linear(f"{name}.mixer.Wqkv", 3 * hidden, hidden)
        linear(f"{name}.mixer.out_proj", hidden, hidden)
        maker.norm(f"{name}.norm1", hidden)
        linear(f"{name}.mlp.fc1", inner, hidden)
        linear(f"{name}.mlp.fc2", hidden, inner)
        maker.norm(f"{name}.norm2", hidden)
    linear("roberta.pooler.dense", hidden, hidden)


_SIZES: Settings = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
_USUAL = ("hidden_size", "intermediate_size", "num_attention_heads")
_GTE: Settings = {
    **_SIZES,
    "type_vocab_size": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "position_embedding_type": "rope",
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "rope_theta": 160000,
    "rope_scaling": None,
    "pad_token_id": 1,
}
_NOMIC: Settings = {
    "n_embd": HIDDEN,
    "n_layer": 2,
    "n_head": HEADS,
    "n_inner": INNER,
    "n_positions": POSITIONS,
    "max_trained_positions": POSITIONS,
    "layer_norm_epsilon": 1e-12,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "activation_function": "swiglu",
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "prenorm": False,
    "use_rms_norm": False,
    "parallel_block": False,
    "causal": False,
    "scale_attn_weights": True,
    "type_vocab_size": 2,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is published, and what transformers' class needs instead.

    Attributes:
        config: Its config.json, but for the vocabulary's size.
        tensors: Makes its tensors.
        native: That class's config; keys of `config` that it does not name are dropped.
        as_published: Keys of `config` that the class reads as they are.
    """

    config: Settings
    tensors: Callable[[Maker, Settings], None]
    native: Settings
    as_published: tuple[str, ...] = ("vocab_size",)


_NOMIC_NATIVE: Settings = {
    **_SIZES,
    "model_type": "nomic_bert",
    "hidden_act": "silu",
    "layer_norm_eps": 1e-12,
    "rope_theta": 1000.0,
    "type_vocab_size": 2,
}
_MODERNBERT: Settings = {
    **_SIZES,
    "num_hidden_layers": 4,
    "global_attn_every_n_layers": 3,
    "local_attention": 8,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "pad_token_id": 0,
}

_JINA: Settings = {
    **_SIZES,
    "max_position_embeddings": POSITIONS + 2,
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.Model"},
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "lora_adaptations": ["retrieval.query", "separation", "text-matching"],
    "lora_rank": 4,
    "lora_alpha": 2,
    "matryoshka_dimensions": [16, 32],
    "task_instructions": {
        "retrieval.query": "Represent the query for retrieving evidence documents: ",
        "separation": "",
        "text-matching": "",
    },
}

FAMILIES = {
    "modernbert": Family(
        config={"architectures": ["ModernBertModel"], "model_type": "modernbert", **_MODERNBERT},
        tensors=_modernbert,
        native={"model_type": "modernbert"},
        as_published=("vocab_size", *_MODERNBERT),
    ),
    "gte": Family(
        config={"architectures": ["GteModel"], "model_type": "gte", **_GTE},
        tensors=_gte,
        native={"model_type": "gte"},
        as_published=("vocab_size", *_GTE),
    ),
    "new": Family(
        config={
            "architectures": ["NewForTokenClassification"],
            "model_type": "new",
            "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
            **_GTE,
            "type_vocab_size": 0,
            "rope_theta": 20000,
            "rope_scaling": {"type": "ntk", "factor": 8.0},
        },
        tensors=_new,
        native={
            "model_type": "gte",
            **{key: value for key, value in _GTE.items() if key != "rope_scaling"},
            "type_vocab_size": 0,
        },
    ),
    "nomic-bert": Family(
        config={
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling.NomicBertModel"},
            **_NOMIC,
        },
        tensors=_nomic,
        native=_NOMIC_NATIVE,
    ),
    "nomic-bert-moe": Family(
        config={
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling.NomicBertModel"},
            **_NOMIC,
            "n_layer": 4,
            "layer_norm_epsilon": 1e-5,
            "rotary_emb_base": 10000,
            "activation_function": "gelu",
            "qkv_proj_bias": True,
            "mlp_fc1_bias": True,
            "mlp_fc2_bias": True,
            "type_vocab_size": 1,
            "moe_every_n_layers": 2,
            "moe_top_k": 2,
            "moe_normalize_expert_weights": False,
            "num_experts": 4,
            "num_shared_experts": 0,
            "expert_choice_router": False,
            "ffn_div": 1,
        },
        tensors=_nomic_moe,
        native={},
    ),
    "jina-embeddings-v3": Family(
        config={"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", **_JINA},
        tensors=_jina,
        native={
            **_SIZES,
            "model_type": "jina_embeddings_v3",
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "rope_theta": 20000.0,
        },
    ),
}
Original = Callable[[Sequence[int]], Array]


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A checkpoint on disk, with what it was made from."""

    folder: Path
    config: Settings
    tensors: Tensors

    def source(self, **settings: Any) -> Source:
        return read_source(ExportConfig(model=str(self.folder), **settings))


@pytest.fixture
def make(tmp_path: Path, dummy_tokenizer: Tokenizer) -> Callable[..., Tiny]:
    """Writes a tiny checkpoint: `make("gte", rope_theta=10000)`; keywords are config.json's."""

    def make(name: str, **config: Any) -> Tiny:
        family = FAMILIES[name]
        folder = tmp_path / name
        folder.mkdir()
        dummy_tokenizer.save(str(folder / "tokenizer.json"))
        words = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
        words |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
        _write_json(
            folder / "tokenizer_config.json",
            {**words, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1 << 40},
        )
        settings = {**family.config, "vocab_size": dummy_tokenizer.get_vocab_size(), **config}
        _write_json(folder / "config.json", settings)
        maker = Maker(seed=0)
        family.tensors(maker, settings)
        save_file(maker.tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return Tiny(folder=folder, config=settings, tensors=maker.tensors)

    return make


@pytest.fixture
def run_graphs(tmp_path: Path) -> Callable[..., dict[Dialect, Array]]:
    """Runs rows through both dialects; gives their token vectors, rows one after another."""

    def run_graphs(
        source: Source,
        rows: Sequence[Sequence[int]],
        dialects: Sequence[Dialect] = ("padded", "packed"),
        *,
        adapters: Sequence[int] | None = None,
    ) -> dict[Dialect, Array]:
        folder = tmp_path / "bundle"
        if not folder.exists():
            folder.mkdir()
            write_graphs(folder, source)
        lengths = [len(row) for row in rows]
        slots = np.arange(max(lengths)) < np.array(lengths)[:, None]
        padded = np.zeros(slots.shape, np.int64)
        padded[slots] = np.concatenate(rows)
        chosen = np.full(len(rows), -1) if adapters is None else np.array(adapters)
        indices = np.zeros_like(padded)
        indices[slots] = np.arange(sum(lengths))
        feeds: dict[str, dict[str, Array]] = {
            "padded": {
                "input_ids": padded,
                "attention_mask": slots.astype(np.int64),
                "adapter_ids": chosen,
            },
            "packed": {
                "input_ids": padded[slots],
                "position_ids": np.nonzero(slots)[1],
                "pad_index": indices,
                "unpad_index": np.flatnonzero(slots),
                "attention_mask": slots.astype(np.float32),
                "adapter_ids": np.repeat(chosen, lengths),
            },
        }
        results: dict[Dialect, Array] = {}
        for dialect in dialects:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                folder / "graphs" / f"{dialect}.onnx", options, providers=["CPUExecutionProvider"]
            )
            feed = {one.name: feeds[dialect][one.name] for one in session.get_inputs()}
            (tokens,) = session.run(["token_embeddings"], feed)
            results[dialect] = tokens[slots] if dialect == "padded" else tokens
        return results

    return run_graphs


def load_native(tiny: Tiny, name: str, state: Any = None, **native: Any) -> Any:
    """Load transformers' class in float32, from the checkpoint or from tensors given."""
    family = FAMILIES[name]
    settings = {key: tiny.config[key] for key in family.as_published}
    settings |= {**family.native, **native}
    config = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
    model, loading = transformers.MODEL_MAPPING[type(config)].from_pretrained(
        tiny.folder if state is None else None,
        config=config,
        state_dict=state,
        dtype=torch.float32,
        output_loading_info=True,
    )
    assert not {key for key in loading["missing_keys"] if not key.startswith("pooler.")}
    return model.eval()


def run_alone(model: Any) -> Original:
    """Give a function from one row of ids to its [T, H] token vectors."""

    def tokens(row: Sequence[int]) -> Array:
        with torch.inference_mode():
            ids = torch.tensor([list(row)])
            states: Array = model(input_ids=ids).last_hidden_state[0].numpy()
        return states

    return tokens


def random_rows(lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, 200, length).tolist() for length in lengths]


def cosine(vectors: Array, others: Array) -> float:
    lengths = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(others, axis=-1)
    return float((np.einsum("nd,nd->n", vectors, others) / lengths).min())


RunGraphs = Callable[..., Mapping[Dialect, Array]]
Make = Callable[..., Tiny]


def check(source: Source, original: Original, run_graphs: RunGraphs) -> None:
    """Compare every token of uneven batches, in this order and in the other."""
    for lengths in BATCHES:
        rows = random_rows(lengths)
        expected = [original(row) for row in rows]
        for order in (1, -1):
            wanted = np.concatenate(expected[::order])
            for tokens in run_graphs(source, rows[::order]).values():
                assert cosine(tokens, wanted) >= 0.99999
                assert np.abs(tokens - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["modernbert", "gte", "nomic-bert"])
def test_every_token_is_the_originals(make: Make, run_graphs: RunGraphs, name: str) -> None:
    tiny = make(name)
    check(tiny.source(), run_alone(load_native(tiny, name)), run_graphs)


def test_mgte_stretches_its_rotation_its_own_way(make: Make, run_graphs: RunGraphs) -> None:
    tiny = make("new")
    size, theta, factor = HIDDEN // HEADS, 20000, 8.0
    model = load_native(tiny, "new", rope_parameters={"rope_type": "default", "rope_theta": theta})
    powers = torch.arange(0, size, 2) / size
    model.rotary_emb.inv_freq.copy_((theta * factor) ** -powers / factor ** (2 / size))
    check(tiny.source(), run_alone(model), run_graphs)


def test_a_mixture_of_experts_is_what_its_formula_says(make: Make, run_graphs: RunGraphs) -> None:
    tiny = make("nomic-bert-moe")
    check(tiny.source(), lambda row: run_mixture(tiny, row), run_graphs)


def test_a_graph_holds_all_adapters(make: Make, run_graphs: RunGraphs) -> None:
    instructions = {"retrieval.query": "Represent the query: "}
    tiny = make("jina-embeddings-v3", task_instructions=instructions)
    source = tiny.source()
    tasks = tiny.config["lora_adaptations"]
    originals = [
        run_alone(load_native(tiny, "jina-embeddings-v3", merge_adapter(tiny, task)))
        for task in (*tasks, None)
    ]
    rows = random_rows([9, 40, 3, 17, 17, 1, 9])
    adapters = [1, -1, 0, 2, 2, -1, 0]
    expected = np.concatenate([originals[a](row) for a, row in zip(adapters, rows, strict=True)])
    for tokens in run_graphs(source, rows, adapters=adapters).values():
        assert cosine(tokens, expected) >= 0.99999
        assert np.abs(tokens - expected).max() < 1e-4 * np.abs(expected).max()
    assert source.spec.adapters == tuple(tasks)
    assert source.spec.prompts == {**dict.fromkeys(tasks, ""), **instructions}
    assert source.spec.default_prompt is None


def test_tasks_are_proven_and_served_side_by_side(
    make: Make, tmp_path: Path, fast_exports: None
) -> None:
    tiny = make("jina-embeddings-v3", task_instructions={"separation": "divide: "})
    modules: list[Settings] = [
        {"type": "custom_st.Transformer", "path": "", "kwargs": ["task"]},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]
    _write_json(tiny.folder / "modules.json", modules)
    (tiny.folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    _write_json(tiny.folder / "1_Pooling" / "config.json", pooling)
    (tiny.folder / "custom_st.py").write_text("raise SystemExit('code of the repository ran')")
    engines = ("onnxruntime", "openvino")
    config = ExportConfig(model=str(tiny.folder), output=tmp_path / "bundle", engines=engines)
    bundle, certificate = export_bundle(config)
    tasks = tiny.config["lora_adaptations"]
    stored = read_reference(bundle)
    assert {*stored.tasks} == {None, *tasks}
    for proof in certificate.engines:
        assert proof.figures
        assert proof.figures.num_texts == len(stored.tasks)
    texts = ["a", "the quick brown fox", "retrieval needs vectors " * 9]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    with Runtime(bundle) as runtime:
        requests = [EmbedRequest(inputs=texts, prompt_name=task) for task in (None, *tasks)]
        results = [job.result() for job in [runtime.submit(request) for request in requests]]
    for request, result in zip(requests, results, strict=True):
        task = request.prompt_name
        prompt = "divide: " if task == "separation" else ""
        original = run_alone(load_native(tiny, "jina-embeddings-v3", merge_adapter(tiny, task)))
        for text, vector in zip(texts, result.vectors, strict=True):
            expected = original(tokenizer.encode(prompt + text).ids).mean(axis=0)
            assert cosine(vector[None], expected[None]) > 0.99999


def test_nomic_is_cut_after_a_layer_norm(make: Make, tmp_path: Path, fast_exports: None) -> None:
    tiny = make("nomic-bert", matryoshka_dimensions=[8, 16])
    config = ExportConfig(
        model=str(tiny.folder), output=tmp_path / "bundle", engines=("onnxruntime",)
    )
    bundle, _ = export_bundle(config)
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    texts = ["a", "the quick brown fox", "retrieval needs vectors " * 9]
    original, functional = run_alone(load_native(tiny, "nomic-bert")), torch.nn.functional
    whole = torch.tensor(
        np.stack([original(tokenizer.encode(text).ids).mean(axis=0) for text in texts])
    )
    centered = functional.layer_norm(whole, (HIDDEN,), eps=0)
    with Runtime(bundle) as runtime:
        for size in (8, 16):
            expected = functional.normalize(centered[:, :size], dim=1).numpy()
            vectors = runtime.embed(texts, dimensions=size)
            np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
        expected = functional.normalize(whole, dim=1).numpy()
        np.testing.assert_allclose(runtime.embed(texts), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        ("nomic-bert", "nomic-embed-text-v1.5", {"matryoshka": (64, 128), "center": True}),
        ("nomic-bert", "nomic-embed-text-v1", {}),
        ("new", "gte-multilingual-base", {"matryoshka": (), "smallest": 128}),
        ("new", "gte-base-en-v1.5", {}),
    ],
)
def test_sizes_that_no_file_of_a_published_model_says(
    make: Make, family: str, name: str, expected: Settings
) -> None:
    width = "n_embd" if family == "nomic-bert" else "hidden_size"
    tiny = make(family, **{width: 192})
    folder = tiny.folder.rename(tiny.folder.with_name(name))
    spec = read_source(ExportConfig(model=str(folder))).spec
    assert spec.dimensions == Dimensions(native=192, **expected)


def test_a_transformer_of_the_repositorys_own_is_refused(make: Make) -> None:
    tiny = make("gte")
    module = {"type": "custom_st.Transformer", "path": ""}
    _write_json(tiny.folder / "modules.json", [module])
    with pytest.raises(ExportError, match=re.escape("'type' is \"custom_st.Transformer\"")):
        tiny.source()


def test_a_model_whose_adapters_are_merged_already(make: Make, run_graphs: RunGraphs) -> None:
    tiny = make("jina-embeddings-v3")
    merged = merge_adapter(tiny, "separation")
    tensors = {f"roberta.{name}": tensor.numpy() for name, tensor in merged.items()}
    save_file(tensors, tiny.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match="lora_adaptations"):
        run_graphs(tiny.source(), random_rows([3]))
    source = tiny.source(hf_overrides={"lora_adaptations": None})
    assert source.spec.adapters == ()
    shutil.rmtree(tiny.folder.with_name("bundle"))
    check(source, run_alone(load_native(tiny, "jina-embeddings-v3", merged)), run_graphs)


@pytest.mark.parametrize("task", ["retrieval.query", "text-matching"])
def test_an_adapter_is_merged(make: Make, run_graphs: RunGraphs, task: str) -> None:
    tiny = make("jina-embeddings-v3")
    source = tiny.source(task_adapter=task)
    state = merge_adapter(tiny, task)
    original = run_alone(load_native(tiny, "jina-embeddings-v3", state))
    check(source, original, run_graphs)
    assert source.spec.adapters == ()
    assert source.spec.default_prompt == task
    assert source.spec.prompts == {task: tiny.config["task_instructions"][task]}
    assert source.spec.max_tokens == POSITIONS
    assert source.spec.dimensions.matryoshka == (16, 32)


def merge_adapter(tiny: Tiny, task: str | None) -> dict[str, Any]:
    """Merge a task's adapter as the model's own code adds it: transposed for embeddings."""
    part = ".parametrizations.weight"
    state: dict[str, Any] = {}
    for name, tensor in tiny.tensors.items():
        plain = name.removeprefix("roberta.")
        if name.endswith(f"{part}.original"):
            stem = name.removesuffix(".original")
            if task is not None:
                index = tiny.config["lora_adaptations"].index(task)
                first, second = (tiny.tensors[f"{stem}.0.lora_{kind}"][index] for kind in "AB")
                change = first @ second if "embeddings" in name else second @ first
                scale = tiny.config["lora_alpha"] / tiny.config["lora_rank"]
                tensor = (tensor + scale * change).astype(np.float32)
            plain = plain.replace(f"{part}.original", ".weight")
        elif part in name:
            continue
        state[plain] = torch.from_numpy(tensor)
    return state


def test_an_adapter_the_model_lacks_is_refused(make: Make) -> None:
    tiny = make("jina-embeddings-v3")
    with pytest.raises(ExportError, match=r"retrieval\.query, separation, text-matching"):
        tiny.source(task_adapter="retrieval")
    with pytest.raises(ExportError, match="GteModel has no adapters"):
        make("gte").source(task_adapter="retrieval.query")


def run_mixture(tiny: Tiny, row: Sequence[int]) -> Array:
    """Compute Nomic BERT v2 with torch's own layers, experts by a loop; [T, H]."""
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(tensor) for name, tensor in tiny.tensors.items()}
    size, epsilon = HIDDEN // HEADS, tiny.config["layer_norm_epsilon"]

    def linear(values: Any, name: str) -> Any:
        return functional.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(values: Any, name: str) -> Any:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(values, (HIDDEN,), weight, bias, epsilon)

    turns = tiny.config["rotary_emb_base"] ** -(torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(len(row)), turns).repeat(1, 2)

    def rotate(heads: Any) -> Any:
        first, second = heads.chunk(2, dim=-1)
        return heads * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()

    def mixture(values: Any, name: str) -> Any:
        shares = functional.linear(values, weights[f"{name}.router.layer.weight"]).softmax(dim=-1)
        total = weights[f"{name}.experts.bias"].expand(len(row), HIDDEN).clone()
        first, second = (
            weights[f"{name}.experts.mlp.{kind}"].unflatten(0, (-1, INNER)) for kind in ("w1", "w2")
        )
        for token, (best, experts) in enumerate(zip(*shares.topk(2), strict=True)):
            for share, expert in zip(best, experts, strict=True):
                inner = functional.gelu(first[expert] @ values[token])
                total[token] += share * (inner @ second[expert])
        return total

    states = weights["embeddings.word_embeddings.weight"][list(row)]
    states = norm(states + weights["embeddings.token_type_embeddings.weight"][0], "emb_ln")
    for index in range(tiny.config["n_layer"]):
        name = f"encoder.layers.{index}"
        qkv = linear(states, f"{name}.attn.Wqkv").unflatten(-1, (3, HEADS, size))
        queries, keys, values = qkv.permute(1, 2, 0, 3)
        mixed = functional.scaled_dot_product_attention(
            rotate(queries)[None], rotate(keys)[None], values[None]
        )
        attended = linear(mixed[0].transpose(0, 1).flatten(1), f"{name}.attn.out_proj")
        states = norm(states + attended, f"{name}.norm1")
        if index % 2:
            outer = mixture(states, f"{name}.mlp")
        else:
            outer = linear(functional.gelu(linear(states, f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
        states = norm(states + outer, f"{name}.norm2")
    tokens: Array = states.numpy()
    return tokens


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_exporter_loads_the_same_original(make: Make, run_graphs: RunGraphs, name: str) -> None:
    source = make(name).source()
    texts = ["a", "the quick brown fox", "retrieval needs vectors that are right " * 4]
    finished: list[tuple[int, int]] = []

    def advance(done: int, total: int) -> None:
        finished.append((done, total))

    reference = run_original(
        source.checkpoint,
        source.recipe,
        source.spec,
        source.tokenizer,
        texts,
        advance,
    )
    assert source.spec.normalize
    count = len(reference.texts)
    assert finished == [(done, count) for done in range(1, count + 1)]
    assert reference.texts[:3] == tuple(texts)
    tasks = reference.tasks or (None,) * count
    assert len(tasks) == count == 3 + len(source.spec.adapters)
    for text, task, expected in zip(reference.texts, tasks, reference.vectors, strict=True):
        adapter = -1 if task is None else source.spec.adapters.index(task)
        prompt = "" if task is None else source.spec.prompts[task]
        ids = source.tokenizer.encode(prompt + text, max_tokens=POSITIONS)
        tokens = run_graphs(source, [ids], adapters=[adapter])["packed"]
        vector = tokens.mean(axis=0) if source.spec.pooling.modes == ("mean",) else tokens[0]
        assert np.abs(vector / np.linalg.norm(vector) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("gte", {"logn_attention_scale": True}, "'logn_attention_scale' is true"),
        ("gte", {"layer_norm_type": "rms_norm"}, "'layer_norm_type' is \"rms_norm\""),
        ("gte", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'type' is \"dynamic\""),
        ("new", {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.9}}, "'mixed_b'"),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'rope_scaling'"),
        ("modernbert", {"hidden_activation": "relu6"}, "'hidden_activation' is \"relu6\""),
        ("nomic-bert", {"prenorm": True}, "'prenorm' is true"),
        ("nomic-bert", {"rotary_emb_interleaved": True}, "'rotary_emb_interleaved' is true"),
        ("nomic-bert", {"rotary_emb_fraction": 0.5}, "'rotary_emb_fraction' is 0.5"),
        ("nomic-bert", {"rotary_emb_scale_base": 512}, "'rotary_emb_scale_base' is 512"),
        ("nomic-bert", {"use_rms_norm": True}, "'use_rms_norm' is true"),
        ("nomic-bert", {"activation_function": "gelu"}, "'activation_function' is \"gelu\""),
        ("nomic-bert-moe", {"expert_choice_router": True}, "'expert_choice_router' is true"),
        (
            "nomic-bert-moe",
            {"moe_normalize_expert_weights": True},
            "'moe_normalize_expert_weights'",
        ),
        ("nomic-bert-moe", {"moe_top_k": 5}, "moe_top_k=5 must be from 1 to num_experts=4"),
        (
            "nomic-bert",
            {"rotary_scaling_factor": 2, "max_trained_positions": None},
            "'rotary_scaling_factor' is 2",
        ),
    ],
)
def test_what_would_go_wrong_is_refused_by_name(
    make: Make, name: str, config: Settings, message: str
) -> None:
    with pytest.raises(ExportError, match=re.escape(message)):
        make(name, **config).source()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_damaged_weight_is_named(
    make: Make, damage: Callable[[Path], str], refused: Callable[..., str], name: str
) -> None:
    folder = make(name).folder
    assert damage(folder) in refused(folder)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_config_of_another_size_is_refused(
    make: Make, contradiction: Callable[[Path], None], refused: Callable[..., str], name: str
) -> None:
    folder = make(name).folder
    contradiction(folder)
    line = refused(folder)
    assert "config.json" in line or "missing" in line


def test_logn_attention_is_refused(make: Make, refused: Callable[..., str]) -> None:
    assert "logn_attention_scale" in refused(make("new", logn_attention_scale=True).folder)


@pytest.mark.parametrize(
    ("name", "config", "native"),
    [
        (
            "modernbert",
            {"max_position_embeddings": LONG, "num_hidden_layers": 2, "local_attention": 128},
            {},
        ),
        ("gte", {"max_position_embeddings": LONG, "num_hidden_layers": 1}, {}),
        (
            "nomic-bert",
            {"n_positions": LONG, "max_trained_positions": LONG, "n_layer": 1, "n_head": 1}
            | {"n_embd": 16, "n_inner": 16},
            {"max_position_embeddings": LONG, "num_hidden_layers": 1, "num_attention_heads": 1}
            | {"hidden_size": 16, "intermediate_size": 16},
        ),
    ],
    ids=["modernbert", "gte", "nomic-bert"],
)
def test_texts_as_long_as_the_model_takes(
    make: Make, run_graphs: RunGraphs, name: str, config: Settings, native: Settings
) -> None:
    if name != "nomic-bert":
        config |= {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    tiny = make(name, **config)
    source = tiny.source()
    assert source.spec.max_tokens == LONG
    (row,) = rows = random_rows([LONG])
    expected = run_alone(load_native(tiny, name, **native))(row)
    tokens = run_graphs(source, rows, ["packed"])["packed"]
    assert cosine(tokens, expected) >= 0.99999


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_tensorrt_rtx_makes_each_attention_one_kernel(
    make: Make, tmp_path: Path, name: str
) -> None:
    backend = get_backend("tensorrt_rtx")
    if not backend.probe().can_build:
        pytest.skip(f"needs TensorRT-RTX: {backend.probe().reason}")
    width, inner, heads = ("n_embd", "n_inner", "n_head") if "nomic" in name else _USUAL
    # Two heads of 64, as the published models have them.
    source = make(name, **{width: 128, inner: 128, heads: 2}).source(precision="fp16")
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_graphs(folder, source)
    built = build_engine(
        "tensorrt_rtx",
        BuildSpec(
            folder=folder,
            graph="graphs/packed-fp16.onnx",
            dialect="packed-fp16",
            precision="fp16",
            max_tokens=source.spec.max_tokens,
            num_layers=source.spec.shape.num_layers,
        ),
    )
    assert built.num_fused_attention == source.spec.shape.num_layers


def test_nomic_stops_where_its_rotation_was_trained_to(make: Make) -> None:
    source = make("nomic-bert", max_trained_positions=64, rotary_scaling_factor=2).source()
    assert source.spec.max_tokens == 64


def test_defaults_where_no_file_says_them(make: Make) -> None:
    pooling = {name: make(name).source().spec.pooling.modes for name in sorted(FAMILIES)}
    assert pooling == {
        "gte": ("cls",),
        "jina-embeddings-v3": ("mean",),
        "modernbert": ("cls",),
        "new": ("cls",),
        "nomic-bert": ("mean",),
        "nomic-bert-moe": ("mean",),
    }


def test_vllms_name_for_mgte_is_known(make: Make) -> None:
    source = make("new").source(hf_overrides={"architectures": ["GteNewModel"]})
    assert source.checkpoint.architecture == "GteNewModel"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_weight_too_few_or_too_many_is_named(make: Make, tmp_path: Path, name: str) -> None:
    tiny = make(name)
    lost, *kept = sorted(
        key for key in tiny.tensors if key.endswith("norm2.weight") or "mlp" in key
    )
    tensors = {key: tensor for key, tensor in tiny.tensors.items() if key != lost}
    save_file(tensors, tiny.folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "few").mkdir()
    with pytest.raises(ExportError, match=re.escape(lost.split(".", 1)[1])):
        write_graphs(tmp_path / "few", tiny.source())
    tensors = {**tiny.tensors, f"{kept[0]}.extra": np.zeros(1, np.float32)}
    save_file(tensors, tiny.folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "many").mkdir()
    with pytest.raises(ExportError, match=r"extra"):
        write_graphs(tmp_path / "many", tiny.source())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def test_mgtes_classifier_weighs_tokens(make: Make, tmp_path: Path) -> None:
    tiny = make("new")
    source = tiny.source()
    assert source.spec.sparse is not None
    # [CLS], [PAD] and [UNK]; its tokenizer has no end of its own.
    assert source.spec.sparse.skipped_ids == (0, 1, 2)
    write_graphs(tmp_path, source)
    session = onnxruntime.InferenceSession(tmp_path / "graphs/padded.onnx")
    feeds = {"input_ids": np.arange(9, 49)[None], "attention_mask": np.ones((1, 40), np.int64)}
    states, weights = session.run(["token_embeddings", "token_weights"], feeds)
    head = tiny.tensors["classifier.weight"], tiny.tensors["classifier.bias"]
    expected = np.maximum(states @ head[0].T + head[1], 0)
    assert 0 < np.count_nonzero(expected) < expected.size
    assert np.abs(weights - expected).max() < 1e-5


def test_a_classifier_of_several_classes_is_for_another_task(make: Make) -> None:
    tiny = make("new")
    path = tiny.folder / "model.safetensors"
    classes = {"classifier.weight": np.ones((2, HIDDEN), np.float32)}
    save_file({**tiny.tensors, **classes}, path, metadata={"format": "pt"})
    assert tiny.source().spec.sparse is None
