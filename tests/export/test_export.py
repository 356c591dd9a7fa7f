"""What can stop an export, and what is left behind: nothing, or the older bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export.cli import main
from embed_export.families import family_page, family_table
from embed_export.recipes import recipes
from embed_runtime.engines import backend_names

pytestmark = pytest.mark.usefixtures("short_timing")

MakeCheckpoint = Callable[..., Path]


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path, output: Path, *flags: str) -> str:
    """Run an export that must fail; returns its one line."""
    before = sorted(output.parent.iterdir())
    code = main([str(checkpoint), "-o", str(output), "--engine", "onnxruntime", *flags])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert code == 2
    assert len(lines) == 1
    assert sorted(output.parent.iterdir()) == before
    return lines[0]


def edit_weights(checkpoint: Path, **changes: np.ndarray | None) -> None:
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor
    save_file(tensors, file, {"format": "pt"})


def edit_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_weight_is_named(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint("bert")
    edit_weights(checkpoint, encoder__layer__1__output__dense__weight=None)
    message = refused(capsys, checkpoint, tmp_path / "out")
    assert "encoder.layer.1.output.dense.weight" in message


def test_an_unexpected_weight_is_named(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint("bert")
    edit_weights(checkpoint, classifier__weight=np.ones((2, 32), np.float32))
    assert "classifier.weight" in refused(capsys, checkpoint, tmp_path / "out")


def test_a_weight_of_another_shape_is_named(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint("bert")
    edit_config(checkpoint, intermediate_size=48)
    message = refused(capsys, checkpoint, tmp_path / "out")
    assert "intermediate" in message or "shape" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bort"}, ("bort", "bert", "CONTRIBUTING.md")),
        ({"architectures": ["BertForTokenClassification"]}, ("BertForTokenClassification",)),
        ({"position_embedding_type": "relative_key"}, ("position_embedding_type", "absolute")),
        ({"hidden_act": "mish"}, ("hidden_act", "gelu")),
        ({"num_attention_heads": 5}, ("hidden_size=32", "num_attention_heads=5")),
    ],
)
def test_settings_nobody_can_compute_are_named(
    make_checkpoint: MakeCheckpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: tuple[str, ...],
) -> None:
    checkpoint = make_checkpoint("bert")
    edit_config(checkpoint, **changes)
    message = refused(capsys, checkpoint, tmp_path / "out")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-length", "100000"], ("--max-length=100000", "128")),
        (["--max-length", "0"], ("--max-length=0",)),
        (["--pooling", "median"], ("--pooling='median'", "mean")),
        (["--pooling", "cls", "--pooler-config", '{"pooling_type": "MEAN"}'], ("keep one",)),
        (["--pooler-config", '{"logit_bias": 1}'], ("logit_bias", "pooling_type")),
        (["--pooler-config", "[1]"], ("--pooler-config", "object")),
        (["--hf-overrides", "{"], ("--hf-overrides",)),
        (["--engine", "coreml"], ("coreml", "onnxruntime")),
        (["--engine", "dummy"], ("dummy", "onnxruntime")),
        (["--revision", "main"], ("folder",)),
    ],
)
def test_flags_nobody_can_follow_are_named(
    make_checkpoint: MakeCheckpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: tuple[str, ...],
) -> None:
    message = refused(capsys, make_checkpoint("bert"), tmp_path / "out", *flags)
    assert all(word in message for word in words), message


def test_a_failing_export_leaves_the_older_bundle(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, output = make_checkpoint("bert"), tmp_path / "bundle"
    assert main([str(checkpoint), "-o", str(output), "--engine", "onnxruntime"]) == 0
    said = capsys.readouterr().out
    assert f"bundle: {output}" in said
    manifest = (output / "manifest.json").read_bytes()
    edit_weights(checkpoint, encoder__layer__0__output__dense__weight=None)
    refused(capsys, checkpoint, output)
    assert (output / "manifest.json").read_bytes() == manifest


def test_weights_too_large_for_half_precision_are_named(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint("bert", pooling=["mean"], normalize=True)
    edit_weights(
        checkpoint, encoder__layer__1__output__LayerNorm__weight=np.full(32, 3e4, np.float32)
    )
    message = refused(capsys, checkpoint, tmp_path / "out", "--fp16")
    assert "--bf16" in message
    assert "activations" in message


def test_list_names_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    table = capsys.readouterr().out
    for name, recipe in recipes().items():
        assert name in table
        assert all(example in table for example in recipe.examples)


def test_the_table_says_once_which_families_give_sparse_vectors() -> None:
    rows = {row.split()[1]: row for row in family_table().splitlines()[2:]}
    for name, recipe in recipes().items():
        ways = (recipe.masked_lm is not None) + (recipe.weighing_layer is not None)
        assert rows[name].count("sparse vectors") == ways, name


def test_the_help_names_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    # Lines break after hyphens, too.
    text = "".join(capsys.readouterr().out.split())
    assert all(name.replace("_", "-") in text for name in backend_names() if name != "dummy")


def test_the_page_of_families_is_what_the_recipes_say() -> None:
    page = Path(__file__).parents[2] / "export" / "FAMILIES.md"
    assert page.read_text(encoding="utf-8") == family_page(), "run make families"
