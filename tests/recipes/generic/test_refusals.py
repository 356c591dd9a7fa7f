"""What `--convert embed` does not take, in one line each, and what it leaves to recipes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import (  # pyright: ignore[reportUnknownVariableType]
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)

from embed_export.cli import main
from embed_export.config import Convert, ExportConfig
from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.progress import QuietSteps
from embed_export.recipes import recipes
from embed_export.reference import run_original
from embed_export.source import read_source

Make = Callable[..., Path]


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Run the command; return the one line it ends with."""
    output = folder.parent / f"{folder.name}-bundle"
    assert main([str(folder), "-o", str(output), "--engine", "onnxruntime", *flags]) == 2
    assert not output.exists()
    lines = capsys.readouterr().err.splitlines()
    [error] = [line for line in lines if line.startswith("error: ")]
    assert lines[-1] == error
    return error


def test_code_that_looks_at_values_cannot_be_traced(
    make_native: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(make_native("dynamic-rope"), capsys, "--convert", "embed")
    assert "Olmo2Model cannot be traced" in error
    assert "data-dependent" in error
    assert "dynamic_frequency_update" in error


def test_a_loop_over_tokens_cannot_be_traced(
    make_native: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(make_native("mamba"), capsys, "--convert", "embed")
    assert "MambaModel cannot be traced: its code is for a fixed number of tokens" in error


def test_more_tokens_than_positions_are_named(make_native: Make) -> None:
    source = read_source(ExportConfig(model=str(make_native("xlm-roberta-xl")), convert="embed"))
    parts = (source.checkpoint, source.recipe, source.spec, source.tokenizer)
    failure = pytest.raises(ExportError, match=r"fails on a text of 128 tokens .* --max-length")
    with QuietSteps().step("original") as advance, failure:
        run_original(*parts, ["word " * 200], advance)


def test_without_the_flag_it_is_named(
    make_native: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(make_native("olmo2"), capsys)
    assert "no recipe for model type 'olmo2'" in error
    assert "--convert embed" in error


def test_code_of_a_repository_is_never_run(
    make_native: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_native("olmo2")
    (folder / "modeling_homebrew.py").write_text("raise SystemExit('this ran')")
    change_config(
        folder, model_type="homebrew", auto_map={"AutoModel": "modeling_homebrew.Homebrew"}
    )
    assert "--convert" not in refusal(folder, capsys)
    error = refusal(folder, capsys, "--convert", "embed")
    assert "no model type 'homebrew'" in error
    assert "never run" in error


def test_int8_is_refused(make_native: Make, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(make_native("olmo2"), capsys, "--convert", "embed", "--int8")
    assert error.endswith("use one of --fp32, --fp16, --bf16")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 2}, "'layers.1."),
        ({"intermediate_size": 32}, "[32, 64], but config.json asks for [32, 32]"),
        ({"max_position_embeddings": None}, "'max_position_embeddings'"),
    ],
)
def test_weights_are_strict(
    changes: dict[str, Any],
    words: str,
    make_native: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_native("olmo2")
    change_config(folder, **changes)
    assert words in refusal(folder, capsys, "--convert", "embed")


def test_a_model_without_a_limit_needs_one(
    make_native: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_native("olmo2")
    sizes = {"d_model": 64, "n_layer": 1, "n_head": 4, "vocab_size": 512}
    config = {"architectures": ["XLNetModel"], "model_type": "xlnet", **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    assert "has no 'max_position_embeddings'" in refusal(folder, capsys, "--convert", "embed")


def test_a_damaged_weight_is_named(make_native: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_native("olmo2")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    error = refusal(folder, capsys, "--convert", "embed")
    assert "'layers.0.mlp.up_proj.weight' holds NaN" in error


def test_other_tasks_are_no_embedding_models(make_native: Make) -> None:
    folder = make_native("olmo2")
    change_config(folder, architectures=["Olmo2ForSequenceClassification"])
    with pytest.raises(UnsupportedModelError, match=r"takes architectures named \*Model"):
        read_source(ExportConfig(model=str(folder), convert="embed"))


def test_a_family_that_cannot_look_ahead_is_refused(
    make_native: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_native("stablelm")
    error = refusal(folder, capsys, "--convert", "embed", "--hf-overrides.is_causal", "false")
    assert "StableLmModel has causal attention only" in error


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("qwen2", "Qwen2ForCausalLM"), ("mistral", "MistralForCausalLM"), ("gemma2", "Gemma2Model")],
)
def test_a_recipe_goes_first(
    name: str, architecture: str, make_decoder: Callable[..., Any]
) -> None:
    folder = make_decoder(name, config={"architectures": [architecture]}).folder
    source = read_source(ExportConfig(model=str(folder), convert="embed"))
    assert source.recipe is recipes()[name]


def test_a_head_nobody_listed_does_not_hide_the_recipe(make_decoder: Callable[..., Any]) -> None:
    folder = make_decoder("qwen2", config={"architectures": ["Qwen2ForSequenceClassification"]})
    with pytest.raises(ExportError, match="can be exported"):
        read_source(ExportConfig(model=str(folder.folder)))
    source = read_source(ExportConfig(model=str(folder.folder), convert="embed"))
    assert source.recipe is recipes()["qwen2"]


@pytest.mark.parametrize("convert", ["auto", "embed"])
def test_an_architecture_of_another_type_is_not_traced_as_if_it_were_this_one(
    make_decoder: Callable[..., Any], convert: Convert
) -> None:
    overrides = {"architectures": ["LlamaBidirectionalModel"]}
    folder = make_decoder("llama").folder
    config = ExportConfig(model=str(folder), convert=convert, hf_overrides=overrides)
    with pytest.raises(ExportError, match=r"'llama-bidirec', but config\.json says 'llama'"):
        read_source(config)
    both = {**overrides, "model_type": "llama_bidirec", "pooling": "avg"}
    spec = read_source(ExportConfig(model=str(folder), hf_overrides=both)).spec
    assert spec.pooling.modes == ("mean",)
