"""The line that says what an export decided, before it starts the long work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export.cli import main
from embed_export.config import ExportConfig
from embed_export.source import read_source

MakeCheckpoint = Callable[..., Path]


def say(checkpoint: Path, **options: Any) -> str:
    return read_source(ExportConfig(model=str(checkpoint), **options)).spec.summary()


def test_defaults_are_said(make_checkpoint: MakeCheckpoint) -> None:
    said = say(make_checkpoint("bert"))
    assert said == "cls pooling; normalized; 32 dimensions; at most 128 tokens"


def test_the_files_and_the_users_choices_are_said(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint("bert", pooling=["mean"])
    prompts = {"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": "query"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert say(checkpoint, max_tokens=64) == (
        "mean pooling; not normalized; 32 dimensions; at most 64 tokens;"
        " prompts query, passage (default: query)"
    )


def test_what_comes_beside_the_vector_is_said(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint("xlm-roberta")
    for name, rows in (("sparse_linear", 1), ("colbert_linear", 12)):
        head = {"weight": np.ones((rows, 32), np.float32), "bias": np.zeros(rows, np.float32)}
        save_file(head, checkpoint / f"{name}.safetensors")
    assert say(checkpoint).endswith("tokens; sparse weights beside; ColBERT vectors beside")


def test_weights_of_words_are_said(make_checkpoint: MakeCheckpoint) -> None:
    said = say(make_checkpoint("bert", prefixed=True), sparse=True)
    assert said.startswith("weights of words (SPLADE); ")
    assert "normalized" not in said
    assert "pooling" not in said


@pytest.mark.usefixtures("short_timing")
def test_the_command_says_it(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint("bert")
    assert main([str(checkpoint), "-o", str(tmp_path / "out"), "--engine", "onnxruntime"]) == 0
    assert f"BertModel: {say(checkpoint)}\n" in capsys.readouterr().out
