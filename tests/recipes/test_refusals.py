"""Decoders that cannot be exported: one line says why, and nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAMILIES = ("llama", "qwen3", "gemma3-text")


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, make_decoder: Callable[..., Any]) -> Path:
    folder: Path = make_decoder(request.param).folder
    return folder


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
    ("family", "config", "words"),
    [
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ("dynamic", "supported")),
        ("qwen3", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, ("dynamic",)),
        ("llama", {"hidden_act": "relu6"}, ("hidden_act", "relu6")),
        ("llama", {"num_key_value_heads": 3}, ("num_key_value_heads=3",)),
        ("llama", {"quantization_config": {"bits": 4}}, ("quantization_config",)),
    ],
)
def test_a_config_nobody_can_compute_is_refused(
    make_decoder: Callable[..., Any],
    refused: Callable[..., str],
    family: str,
    config: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    line = refused(make_decoder(family, config=config).folder)
    assert all(word in line for word in words)
