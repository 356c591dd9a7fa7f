"""bge-m3's heads beside an XLM-RoBERTa checkpoint: weights of words, vectors of tokens."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export import token_heads
from embed_export.cli import main
from embed_export.errors import ExportError, ParityError
from embed_export.limits import TOLERANCES
from embed_export.probe import SPARSE_NAMES, TOKENS_NAME, read_reference
from embed_export.token_heads import TokenHeads, find_token_heads
from embed_export.verify import verify_bundle
from embed_export.weights import Weights
from embed_runtime import BundleError, EmbedRequest, Runtime
from embed_runtime.certificate import read_certificate
from embed_runtime.types import FloatArray, Precision

pytestmark = pytest.mark.usefixtures("short_timing")

MakeCheckpoint = Callable[..., Path]
Export = Callable[..., Path]
Tensors = dict[str, FloatArray]

WIDTH, VECTOR_WIDTH = 32, 12
TEXTS = [
    "a",
    "the quick brown fox jumps over the lazy dog, the fox",
    "",
    "retrieval needs vectors that are right " * 9,
    "Grüße aus München, 今日は良い天気です \U0001f642",
]


def make_heads(seed: int = 0) -> dict[str, Tensors]:
    """Make both heads, by the name of their files."""
    random = np.random.default_rng(seed)

    def linear(out_features: int) -> Tensors:
        return {
            "weight": random.normal(0, 0.3, (out_features, WIDTH)).astype(np.float32),
            "bias": random.normal(0, 0.3, out_features).astype(np.float32),
        }

    return {"sparse_linear": linear(1), "colbert_linear": linear(VECTOR_WIDTH)}


def save(path: Path, tensors: Tensors) -> None:
    if path.suffix == ".pt":
        torch.save({name: torch.tensor(one) for name, one in tensors.items()}, path)
    else:
        save_file(tensors, path)


@pytest.fixture(scope="module")
def make_m3(make_checkpoint: MakeCheckpoint) -> Callable[..., Path]:
    """Write an XLM-RoBERTa checkpoint with CLS pooling, and the two heads beside it."""

    def make() -> Path:
        folder = make_checkpoint("xlm-roberta", pooling=["cls"], normalize=True)
        for name, tensors in make_heads().items():
            save(folder / f"{name}.pt", tensors)
        return folder

    return make


@pytest.fixture(scope="module")
def m3(make_m3: Callable[..., Path], export: Export) -> tuple[Path, Path]:
    """A checkpoint and its bundle, for tests that change neither."""
    checkpoint = make_m3()
    return checkpoint, export(checkpoint)


def hidden_states(checkpoint: Path, row: list[int]) -> npt.NDArray[np.float64]:
    """Run transformers' own model on one row of ids."""
    library: Any = import_module("transformers")
    model = library.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([row])).last_hidden_state[0]
    tokens: npt.NDArray[np.float64] = states.double().numpy()
    return tokens


def weigh(row: list[int], tokens: npt.NDArray[np.float64], head: Tensors) -> dict[int, float]:
    """Weigh words as FlagEmbedding does: the largest weight of a token id, without the specials."""
    found: dict[int, float] = {}
    for token_id, token in zip(row, tokens, strict=True):
        weight = float(token @ head["weight"][0] + head["bias"][0])
        if weight > 0 and token_id not in (0, 1, 2, 3):
            found[token_id] = max(weight, found.get(token_id, 0))
    return found


def test_all_three_outputs(m3: tuple[Path, Path], load_original: Any) -> None:
    checkpoint, bundle = m3
    weights, vectors = make_heads().values()
    dense = load_original(checkpoint)(TEXTS, batch_size=1)
    with Runtime(bundle) as runtime:
        assert runtime.manifest.tasks == ("embed", "token_embed", "sparse")
        assert np.abs(runtime.embed(TEXTS) - dense).max() < 1e-5
        rows = [
            item.input_ids.tolist() for item in runtime.tokenizer.encode(EmbedRequest(inputs=TEXTS))
        ]
        sparse = runtime.encode(TEXTS, task="sparse")
        tokens = runtime.encode(TEXTS, task="token_embed")
        alone = [runtime.encode(text, task="token_embed")[0] for text in TEXTS]
        backwards = runtime.encode(TEXTS[::-1], task="sparse")[::-1]
    for index, row in enumerate(rows):
        states = hidden_states(checkpoint, row)
        expected = weigh(row, states, weights)
        assert sparse[index].data == pytest.approx(expected, abs=1e-5)
        assert backwards[index].data == pytest.approx(expected, abs=1e-5)
        late = states[1:] @ vectors["weight"].T + vectors["bias"]
        late /= np.linalg.norm(late, axis=1, keepdims=True)
        assert tokens[index].data.shape == (len(row) - 1, VECTOR_WIDTH)
        assert np.abs(tokens[index].data - late).max() < 1e-5
        assert np.abs(alone[index].data - late).max() < 1e-5


def test_both_dialects_give_them(m3: tuple[Path, Path]) -> None:
    _, bundle = m3
    session: Any = import_module("onnxruntime").InferenceSession(bundle / "graphs/padded.onnx")
    rows = [[0, 9, 8, 7, 2], [0, 5, 2]]
    feeds = {
        "input_ids": np.array([rows[0], [*rows[1], 1, 1]]),
        "attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]]),
    }
    weights, vectors = session.run(["token_weights", "token_embeddings"], feeds)
    assert (weights.shape, vectors.shape) == ((2, 5, 1), (2, 5, VECTOR_WIDTH))
    with Runtime(bundle) as runtime:
        outputs = runtime.encode(rows, task="token_embed", normalize=False)
        sparse = runtime.encode(rows, task="sparse")
    for index, row in enumerate(rows):
        assert np.abs(vectors[index, 1 : len(row)] - outputs[index].data).max() < 1e-5
        words = [number for number in range(len(row)) if row[number] > 3]
        expected = {row[n]: float(weights[index, n, 0]) for n in words if weights[index, n, 0] > 0}
        assert sparse[index].data == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions(
    make_m3: Callable[..., Path], export: Export, precision: Precision
) -> None:
    [proof] = read_certificate(export(make_m3(), precision=precision)).engines
    assert proof.passed
    assert proof.figures is not None
    assert TOLERANCES[precision].task_cosine_min == (proof.limits and proof.limits.task_cosine_min)
    for task in ("sparse", "token_embed"):
        assert 0.99 < proof.figures.tasks[task].cosine_min < 1 - 1e-9


def find(folder: Path, architecture: str = "XLMRobertaModel") -> TokenHeads:
    return find_token_heads(
        folder,
        Weights({}),
        architecture=architecture,
        hidden_size=WIDTH,
        weighing_layer=None,
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_both_formats_are_read(tmp_path: Path, suffix: str) -> None:
    for name, tensors in make_heads().items():
        save(tmp_path / f"{name}{suffix}", tensors)
    heads = find(tmp_path)
    for head, tensors in zip((heads.weights, heads.vectors), make_heads().values(), strict=True):
        assert head is not None
        assert head.bias is not None
        assert np.array_equal(head.weight(), tensors["weight"])
        assert np.array_equal(head.bias(), tensors["bias"])


@pytest.mark.parametrize("missing", ["sparse_linear", "colbert_linear"])
def test_a_head_without_the_other(
    make_m3: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    checkpoint = make_m3()
    (checkpoint / f"{missing}.pt").unlink()
    assert main([str(checkpoint), "-o", str(tmp_path / "bundle"), "--engine", "onnxruntime"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert f"has no {missing}.pt or {missing}.safetensors" in line
    assert not (tmp_path / "bundle").exists()


def test_vllms_name_asks_for_the_heads(tmp_path: Path) -> None:
    assert find(tmp_path) == TokenHeads()
    with pytest.raises(ExportError, match=r"has no sparse_linear\.pt"):
        find(tmp_path, "BgeM3EmbeddingModel")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("sparse_linear", {"weight": (2, WIDTH)}, "sparse_linear.pt has shape [2, 32]"),
        ("sparse_linear", {"weight": (1, 8)}, "sparse_linear.pt has shape [1, 8]"),
        ("colbert_linear", {"weight": (12, 33)}, "colbert_linear.pt has shape [12, 33]"),
        ("colbert_linear", {"bias": (11,)}, "colbert_linear.pt has shape [11]"),
        ("colbert_linear", {"weight": None}, "colbert_linear.pt has no matrix 'weight'"),
        ("sparse_linear", {"extra": (1,)}, "sparse_linear.pt has 'extra'"),
    ],
)
def test_heads_of_a_wrong_shape(
    tmp_path: Path, name: str, change: dict[str, tuple[int, ...] | None], words: str
) -> None:
    heads = make_heads()
    for key, shape in change.items():
        heads[name].pop(key, None)
        if shape is not None:
            heads[name][key] = np.ones(shape, np.float32)
    for stem, tensors in heads.items():
        save(tmp_path / f"{stem}.pt", tensors)
    with pytest.raises(ExportError) as caught:
        _read_all(find(tmp_path))
    assert words in str(caught.value)


def _read_all(heads: TokenHeads) -> None:
    for head in (heads.weights, heads.vectors):
        assert head is not None
        assert head.bias is not None
        head.weight()
        head.bias()


def test_a_head_that_is_code_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    for name in make_heads():
        torch.save({"weight": Code()}, tmp_path / f"{name}.pt")
    with pytest.raises(ExportError, match="holds more than tensors"):
        find(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("head", "name", "words"),
    [
        ("weights", "sparse_linear", "sparse: smallest cosine"),
        ("vectors", "colbert_linear", "token_embed: smallest cosine"),
    ],
)
def test_a_wrong_head_does_not_pass(
    make_m3: Callable[..., Path],
    export: Export,
    monkeypatch: pytest.MonkeyPatch,
    head: str,
    name: str,
    words: str,
) -> None:
    other = make_heads(seed=1)[name]
    right = token_heads.write_token_outputs

    def wrong(graph: Any, states: str, *, hidden_size: int, heads: Any) -> None:
        layer = replace(getattr(heads, head), weight=lambda: other["weight"])
        right(graph, states, hidden_size=hidden_size, heads=replace(heads, **{head: layer}))

    monkeypatch.setattr("embed_export.dialects.write_token_outputs", wrong)
    with pytest.raises(ParityError, match=words):
        export(make_m3())


class TestCertificate:
    def test_it_covers_every_task_and_verify_repeats_it(self, m3: tuple[Path, Path]) -> None:
        _, bundle = m3
        for certificate in (read_certificate(bundle), verify_bundle(bundle)):
            [proof] = certificate.engines
            assert proof.passed
            assert proof.figures is not None
            assert set(proof.figures.tasks) == {"token_embed", "sparse"}
            assert min(one.cosine_min for one in proof.figures.tasks.values()) > 0.99999
            assert 100 < proof.figures.tasks["token_embed"].num_vectors <= 512
        assert (bundle / TOKENS_NAME).stat().st_size < 512 * VECTOR_WIDTH * 4 + 1000

    @pytest.mark.parametrize("name", [TOKENS_NAME, *SPARSE_NAMES])
    def test_a_reference_that_is_gone(
        self, m3: tuple[Path, Path], tmp_path: Path, name: str
    ) -> None:
        bundle = Path(shutil.copytree(m3[1], tmp_path / "bundle"))
        path = bundle / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["files"][name]
        path.write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match=name):
            verify_bundle(bundle)

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            (TOKENS_NAME, np.ones((3, VECTOR_WIDTH), np.float32)),
            (TOKENS_NAME, np.array([[{}]], dtype=object)),
            (SPARSE_NAMES[0], np.ones(3, np.int32)),
            (SPARSE_NAMES[1], np.full(3, np.nan, np.float32)),
        ],
    )
    def test_a_reference_that_is_another(
        self, m3: tuple[Path, Path], tmp_path: Path, name: str, array: npt.NDArray[Any]
    ) -> None:
        bundle = Path(shutil.copytree(m3[1], tmp_path / "bundle"))
        np.save(bundle / name, array, allow_pickle=True)
        with pytest.raises(BundleError, match="reference"):
            read_reference(bundle)
