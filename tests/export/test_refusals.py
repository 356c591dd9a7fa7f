"""Checkpoints of BERT's kin that cannot be exported: one line says why, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAMILIES = ("bert", "distilbert", "mpnet")


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(request.param)


def test_a_damaged_weight_is_named(
    checkpoint: Path, damage: Callable[[Path], str], refused: Callable[..., str]
) -> None:
    assert damage(checkpoint) in refused(checkpoint)


def test_a_config_of_another_size_is_refused(
    checkpoint: Path, contradiction: Callable[[Path], None], refused: Callable[..., str]
) -> None:
    contradiction(checkpoint)
    line = refused(checkpoint)
    assert "config.json" in line or "missing" in line


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "berd"}, ("no recipe for model type 'berd'", "bert", "CONTRIBUTING.md")),
        ({"architectures": ["BertForChess"]}, ("'BertForChess'", "BertModel", "--hf-overrides")),
        ({"hidden_act": "relu6"}, ("hidden_act", "relu6", "gelu")),
        ({"num_attention_heads": 5}, ("num_attention_heads=5", "hidden_size")),
        ({"position_embedding_type": "relative_key"}, ("position_embedding_type",)),
        ({"is_decoder": True}, ("is_decoder",)),
    ],
)
def test_a_config_nobody_can_compute_is_refused(
    make_checkpoint: Callable[..., Path],
    refused: Callable[..., str],
    config: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    checkpoint = make_checkpoint("bert")
    path = checkpoint / "config.json"
    published = json.loads(path.read_text(encoding="utf-8"))
    code = {"AutoModel": "modeling.Model", "AutoConfig": "configuration.Config"}
    path.write_text(json.dumps({**published, "auto_map": code, **config}), encoding="utf-8")
    line = refused(checkpoint)
    assert all(word in line for word in words)
