"""Encoders with rotary positions against transformers' own classes, from published formats."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer

from embed_export.config import ExportConfig
from embed_export.dialects import write_graphs
from embed_export.export import export_bundle
from embed_export.reference import run_original
from embed_export.source import Source, read_source
from embed_runtime import Runtime
from embed_runtime.engines import BuiltEngine
from embed_runtime.manifest import Dialect, Dimensions
from tests.recipes.encoders.families import HEADS, HIDDEN, INNER, POSITIONS

# Its types are loose.
torch: Any = import_module("torch")

Array = npt.NDArray[Any]
Settings = dict[str, Any]
# Fixtures of conftest.py.
Make = Callable[..., Any]
Check = Callable[[Source, Any], None]
RunGraphs = Callable[..., Mapping[Dialect, Array]]
RandomRows = Callable[..., list[list[int]]]
Cosine = Callable[[Array, Array], float]

LONG = 8192
USUAL = ("hidden_size", "intermediate_size", "num_attention_heads")


@pytest.mark.parametrize("name", ["modernbert", "gte", "nomic-bert"])
def test_every_token_is_the_originals(make: Make, check: Check, name: str) -> None:
    tiny = make(name)
    check(tiny.source(), tiny.original())


def test_mgte_stretches_its_rotation_its_own_way(
    make: Make, check: Check, run_alone: Callable[[Any], Any]
) -> None:
    tiny = make("new")
    size, theta, factor = HIDDEN // HEADS, 20000, 8.0
    model = tiny.load_native(rope_parameters={"rope_type": "default", "rope_theta": theta})
    powers = torch.arange(0, size, 2) / size
    model.rotary_emb.inv_freq.copy_((theta * factor) ** -powers / factor ** (2 / size))
    check(tiny.source(), run_alone(model))


def test_a_mixture_of_experts_is_what_its_formula_says(make: Make, check: Check) -> None:
    tiny = make("nomic-bert-moe")
    check(tiny.source(), partial(run_mixture, tiny))


def run_mixture(tiny: Any, row: Sequence[int]) -> Array:
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


def test_the_exporter_loads_the_same_original(
    make: Make, run_graphs: RunGraphs, family: str
) -> None:
    source = make(family).source()
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
    make: Make,
    run_graphs: RunGraphs,
    random_rows: RandomRows,
    cosine: Cosine,
    name: str,
    config: Settings,
    native: Settings,
) -> None:
    if name != "nomic-bert":
        config |= {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    tiny = make(name, **config)
    source = tiny.source()
    assert source.spec.max_tokens == LONG
    (row,) = rows = random_rows([LONG])
    expected = tiny.original(**native)(row)
    tokens = run_graphs(source, rows, ["packed"])["packed"]
    assert cosine(tokens, expected) >= 0.99999


def test_tensorrt_rtx_makes_each_attention_one_kernel(
    make: Make, build_with_rtx: Callable[..., BuiltEngine], tmp_path: Path, family: str
) -> None:
    width, inner, heads = ("n_embd", "n_inner", "n_head") if "nomic" in family else USUAL
    # Two heads of 64, as the published models have them.
    source = make(family, **{width: 128, inner: 128, heads: 2}).source(precision="fp16")
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_graphs(folder, source)
    built = build_with_rtx(folder, source, "fp16")
    assert built.num_fused_attention == source.spec.shape.num_layers


def test_nomic_stops_where_its_rotation_was_trained_to(make: Make) -> None:
    source = make("nomic-bert", max_trained_positions=64, rotary_scaling_factor=2).source()
    assert source.spec.max_tokens == 64


def test_nomic_is_cut_after_a_layer_norm(make: Make, tmp_path: Path, fast_exports: None) -> None:
    tiny = make("nomic-bert", matryoshka_dimensions=[8, 16])
    config = ExportConfig(
        model=str(tiny.folder), output=tmp_path / "bundle", engines=("onnxruntime",)
    )
    bundle, _ = export_bundle(config)
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    texts = ["a", "the quick brown fox", "retrieval needs vectors " * 9]
    original, functional = tiny.original(), torch.nn.functional
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


def test_defaults_where_no_file_says_them(make: Make, family: str) -> None:
    means = {"jina-embeddings-v3", "nomic-bert", "nomic-bert-moe"}
    expected = ("mean",) if family in means else ("cls",)
    assert make(family).source().spec.pooling.modes == expected


def test_vllms_name_for_mgte_is_known(make: Make) -> None:
    source = make("new").source(hf_overrides={"architectures": ["GteNewModel"]})
    assert source.checkpoint.architecture == "GteNewModel"
