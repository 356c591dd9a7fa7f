"""SPLADE: a masked language model's scores of words, pooled to sparse vectors."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export import splade
from embed_export.cli import main
from embed_export.config import ExportConfig
from embed_export.dialects import write_graphs
from embed_export.errors import ExportError, ParityError, UnsupportedModelError
from embed_export.limits import TOLERANCES
from embed_export.masked_lm import require_masked_lm
from embed_export.modules import SpladePooling
from embed_export.probe import read_reference
from embed_export.source import read_source
from embed_export.verify import verify_bundle
from embed_export.weights import Weights
from embed_runtime import BundleError, Runtime
from embed_runtime.certificate import read_certificate
from embed_runtime.engines import BuiltEngine
from embed_runtime.manifest import Sparse
from embed_runtime.types import FloatArray, Precision

pytestmark = pytest.mark.usefixtures("short_timing")

MakeCheckpoint = Callable[..., Path]
MakeSplade = Callable[..., Path]
Export = Callable[..., Path]
BuildWithRtx = Callable[..., BuiltEngine]

TEXTS = [
    "a",
    "the quick brown fox",
    "",
    "retrieval needs vectors that are right " * 9,
    "Grüße aus München, 今日は良い天気です \U0001f642",
    "x" * 200,
]
DECODERS = {
    "bert": "cls.predictions.decoder.weight",
    "distilbert": "vocab_projector.weight",
    "xlm-roberta": "lm_head.decoder.weight",
    "mpnet": "lm_head.decoder.weight",
}


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    """Cut even these vocabularies into several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splade, "CHUNK_WORDS", 128)
        yield


@pytest.fixture(scope="module")
def make_splade(make_checkpoint: MakeCheckpoint) -> MakeSplade:
    """Write a masked language model, with SpladePooling behind it where settings are given."""

    def make(
        family: str = "bert",
        settings: Mapping[str, object] | None = None,
        *,
        tied: bool = True,
        **options: Any,
    ) -> Path:
        folder = make_checkpoint(family, prefixed=True, **options)
        if tied:
            path = folder / "model.safetensors"
            tensors = load_file(path)
            del tensors[DECODERS[family]]
            save_file(tensors, path, metadata={"format": "pt"})
        if settings is not None:
            package = "sentence_transformers.sparse_encoder.models"
            types = {"": f"{package}.MLMTransformer", "1_SpladePooling": f"{package}.SpladePooling"}
            modules = [
                {"idx": index, "name": str(index), "path": path, "type": kind}
                for index, (path, kind) in enumerate(types.items())
            ]
            (folder / "modules.json").write_text(json.dumps(modules))
            top = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
            (folder / "config_sentence_transformers.json").write_text(json.dumps(top))
            (folder / "1_SpladePooling").mkdir()
            (folder / "1_SpladePooling/config.json").write_text(json.dumps(settings))
        return folder

    return make


@pytest.fixture(scope="module")
def bert(make_splade: MakeSplade, export: Export) -> tuple[Path, Path]:
    """A checkpoint and its bundle, for tests that change neither."""
    checkpoint = make_splade("bert", {})
    return checkpoint, export(checkpoint)


def encode_original(checkpoint: Path) -> FloatArray:
    """Let Sentence-Transformers' own SparseEncoder weigh the texts, one at a time."""
    library: Any = import_module("sentence_transformers")
    model = library.SparseEncoder(str(checkpoint), device="cpu", local_files_only=True)
    vectors: FloatArray = model.encode(TEXTS, batch_size=1, convert_to_sparse_tensor=False).numpy()
    return vectors


def as_vectors(outputs: list[Any], size: int) -> FloatArray:
    vectors: FloatArray = np.zeros((len(outputs), size), np.float32)
    for row, output in zip(vectors, outputs, strict=True):
        row[list(output.data)] = list(output.data.values())
    return vectors


@pytest.mark.parametrize(
    ("family", "settings", "tied"),
    [
        ("bert", {"pooling_strategy": "sum", "activation_function": "relu"}, False),
        ("distilbert", {"activation_function": "log1p_relu"}, True),
        ("xlm-roberta", {"pooling_strategy": "sum", "activation_function": "log1p_relu"}, True),
        ("mpnet", {"pooling_strategy": "max"}, False),
    ],
    ids=str,
)
def test_sentence_transformers_gives_the_same_weights(
    make_splade: MakeSplade,
    export: Export,
    family: str,
    settings: Mapping[str, object],
    tied: bool,
) -> None:
    checkpoint = make_splade(family, settings, tied=tied)
    expected = encode_original(checkpoint)
    with Runtime(export(checkpoint)) as runtime:
        manifest, size = runtime.manifest, runtime.manifest.tokenizer.vocab_size
        together = as_vectors(runtime.encode(TEXTS, task="sparse"), size)
        alone = as_vectors([runtime.encode(text, task="sparse")[0] for text in TEXTS], size)
        backwards = as_vectors(runtime.encode(TEXTS[::-1], task="sparse")[::-1], size)
        dense = runtime.embed(TEXTS)
    assert (manifest.dimensions.native, manifest.normalize) == (size, False)
    assert (manifest.similarity, manifest.pooling.modes) == ("dot", ())
    scale = float(expected.max())
    assert scale > 0.5
    assert np.abs(together - expected).max() < 1e-5 * scale
    for vectors in (alone, backwards, dense):
        assert np.abs(vectors - together).max() < 2e-6 * scale


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_both_dialects_agree_whatever_the_padding(
    make_splade: MakeSplade, tmp_path: Path, strategy: str
) -> None:
    source = read_source(
        ExportConfig(model=str(make_splade("bert", {"pooling_strategy": strategy})))
    )
    write_graphs(tmp_path, source)
    onnxruntime: Any = import_module("onnxruntime")
    padded, packed = (
        onnxruntime.InferenceSession(tmp_path / f"graphs/{dialect}.onnx")
        for dialect in ("padded", "packed")
    )
    random = np.random.default_rng(0)
    for lengths in ([9], [2, 40, 3], [31, 32, 33, 1]):
        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        # Padding is not zero: whatever stands there must not count.
        input_ids = np.where(mask, random.integers(5, 60, mask.shape), 7)
        index = np.zeros_like(input_ids)
        index[mask] = np.arange(sum(lengths))
        feeds = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
        [expected] = padded.run(["embedding"], feeds)
        feeds = {
            "input_ids": input_ids[mask],
            "position_ids": np.nonzero(mask)[1],
            "pad_index": index,
            "unpad_index": np.flatnonzero(mask),
            "attention_mask": mask.astype(np.float32),
        }
        [found] = packed.run(["embedding"], feeds)
        alone = [
            padded.run(
                ["embedding"],
                {"input_ids": row[None, :size], "attention_mask": np.ones((1, size), np.int64)},
            )[0][0]
            for row, size in zip(input_ids, lengths, strict=True)
        ]
        assert np.abs(found - expected).max() < 1e-5 * expected.max()
        assert np.abs(np.stack(alone) - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_stay_within_their_limits(
    make_splade: MakeSplade, export: Export, precision: Precision
) -> None:
    bundle = export(make_splade("bert", {}), precision=precision)
    [proof] = read_certificate(bundle).engines
    assert proof.figures is not None
    assert proof.figures.tasks["sparse"].cosine_min >= TOLERANCES[precision].cosine_min
    assert proof.figures.tasks["sparse"].cosine_min < 1 - 1e-9, "weights were not rounded at all"


def test_nothing_in_the_graph_has_a_score_for_every_word_at_every_token(
    make_splade: MakeSplade, tmp_path: Path
) -> None:
    source = read_source(ExportConfig(model=str(make_splade("bert", {}))))
    vocab_size = source.spec.shape.vocab_size
    assert vocab_size > 2 * splade.CHUNK_WORDS
    write_graphs(tmp_path, source)
    for dialect in ("padded", "packed"):
        model = onnx.ModelProto.FromString((tmp_path / f"graphs/{dialect}.onnx").read_bytes())
        shapes = _shapes(onnx.shape_inference.infer_shapes(model, strict_mode=True))
        # Vectors have a size of their own for each row; only tokens come with many of them.
        wide = {name for name, shape in shapes.items() if shape[-1:] == [vocab_size]}
        assert {len(shapes[name]) for name in wide} == {2}
        assert all(shapes[name][0] == "B" for name in ("embedding", "pooled"))
        chunks = [shape[-1] for shape in shapes.values() if len(shape) == 3 and shape[-1] == 128]
        assert len(chunks) >= vocab_size // splade.CHUNK_WORDS


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in (*model.graph.value_info, *model.graph.output)
    }


def test_tied_words_are_stored_once(make_splade: MakeSplade, tmp_path: Path) -> None:
    sizes: dict[str, int] = {}
    for name, tied in (("tied", True), ("own", False)):
        (tmp_path / name).mkdir()
        source = read_source(ExportConfig(model=str(make_splade("bert", {}, tied=tied))))
        write_graphs(tmp_path / name, source)
        sizes[name] = (tmp_path / name / "graphs/weights.bin").stat().st_size
    shape = source.spec.shape
    assert sizes["own"] - sizes["tied"] >= 4 * shape.vocab_size * shape.hidden_size


def test_asked_for_by_flag_or_by_vllms_name(make_splade: MakeSplade) -> None:
    checkpoint = str(make_splade("bert"))
    ways: list[dict[str, Any]] = [
        {"sparse": True},
        {"hf_overrides": {"architectures": ["BertSpladeSparseEmbeddingModel"]}},
    ]
    plain = read_source(ExportConfig(model=checkpoint)).spec
    assert (plain.splade, plain.sparse, plain.pooling.modes) == (None, None, ("cls",))
    for options in ways:
        spec = read_source(ExportConfig(model=checkpoint, **options)).spec
        assert spec.splade == SpladePooling(strategy="max", double_log=False)
        assert spec.sparse == Sparse(output="embedding", pooling="max")
        assert (spec.normalize, spec.similarity) == (False, "dot")
        assert spec.dimensions.native == spec.shape.vocab_size


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("bert", {}, "has no weight 'cls.predictions.transform.dense.weight'"),
        ("bert", {"pooling": ["mean"], "heads": [(8, "Tanh")], "prefixed": True}, "Dense modules"),
    ],
)
def test_models_without_such_a_head(
    make_checkpoint: MakeCheckpoint, family: str, options: dict[str, Any], words: str
) -> None:
    checkpoint = make_checkpoint(family, **options)
    with pytest.raises(ExportError, match=words):
        read_source(ExportConfig(model=str(checkpoint), sparse=True))


def test_the_flag_and_what_contradicts_it(
    make_splade: MakeSplade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(make_splade("bert"))
    output = ["-o", str(tmp_path / "bundle"), "--engine", "onnxruntime"]
    for option in (["--pooling", "mean"], ["--pooler-config", '{"use_activation": true}']):
        assert main([model, "--sparse", *option, *output]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert "--sparse" in line
    assert main([model, "--sparse", *output]) == 0
    assert "other tasks" in capsys.readouterr().out
    splade_model = str(make_splade("bert", {}))
    assert main([splade_model, "--pooling", "mean", *output]) == 2
    assert "leave --pooling" in capsys.readouterr().err


def test_a_decoder_without_rows_or_bias_is_refused(make_splade: MakeSplade, export: Export) -> None:
    checkpoint = make_splade("bert", {})
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    bias = tensors.pop("cls.predictions.bias")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"'cls\.predictions\.bias' is missing"):
        export(checkpoint)
    tensors["cls.predictions.bias"] = bias[:-1]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"'cls\.predictions\.bias' .* has shape"):
        export(checkpoint)


def test_a_wrong_head_does_not_pass(
    make_splade: MakeSplade, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_splade("bert", {"pooling_strategy": "sum"})
    right = splade.write_weights

    def wrong(graph: Any, tokens: str, decoder: Any, how: SpladePooling) -> str:
        return right(graph, tokens, decoder, replace(how, strategy="max"))

    monkeypatch.setattr("embed_export.dialects.write_weights", wrong)
    with pytest.raises(ParityError, match="sparse: smallest cosine"):
        export(checkpoint)


def test_the_certificate_covers_it_and_verify_repeats_it(bert: tuple[Path, Path]) -> None:
    checkpoint, bundle = bert
    assert not (bundle / "reference/vectors.npy").exists()
    for certificate in (read_certificate(bundle), verify_bundle(bundle)):
        [proof] = certificate.engines
        assert proof.passed
        assert proof.figures is not None
        assert set(proof.figures.tasks) == {"token_embed", "sparse"}
        assert proof.figures.tasks["sparse"].num_vectors == proof.figures.num_texts
        assert proof.figures.tasks["sparse"].cosine_min > 0.99999
    expected = encode_original(checkpoint)
    with Runtime(bundle) as runtime:
        assert np.abs(runtime.embed(TEXTS) - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize(
    "change",
    [
        {"dimensions": 3},
        {"dimensions": -1},
        {"dimensions": 1 << 60},
        {"sparse_counts": None},
        {"sparse_counts": [1]},
        {"sparse_counts": [-1, 1] * 40},
    ],
    ids=str,
)
def test_a_reference_that_lies(
    bert: tuple[Path, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    shutil.copytree(bert[1] / "reference", tmp_path / "reference")
    path = tmp_path / "reference/texts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match="reference"):
        read_reference(tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_rtx_builds_the_graph(
    make_splade: MakeSplade, build_with_rtx: BuildWithRtx, tmp_path: Path, precision: Precision
) -> None:
    source = read_source(ExportConfig(model=str(make_splade("bert", {})), precision=precision))
    write_graphs(tmp_path, source)
    built = build_with_rtx(tmp_path, source, precision)
    assert (tmp_path / built.file).stat().st_size > 0


def test_a_family_without_such_a_head_is_refused() -> None:
    with pytest.raises(
        UnsupportedModelError, match="ModernBertModel has none that can be exported"
    ):
        require_masked_lm(None, Weights({}), "ModernBertModel")
