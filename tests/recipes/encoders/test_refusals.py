"""Encoders that cannot be exported: the error names what is wrong, and nothing is written."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from embed_export.dialects import write_graphs
from embed_export.errors import ExportError

Settings = dict[str, Any]
# A fixture of conftest.py.
Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("gte", {"logn_attention_scale": True}, "is true; it must be false or null"),
        ("gte", {"layer_norm_type": "rms_norm"}, "'layer_norm_type' is \"rms_norm\""),
        ("gte", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'type' is \"dynamic\""),
        ("new", {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.9}}, "'mixed_b'"),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'rope_scaling'"),
        ("modernbert", {"hidden_activation": "relu6"}, "'hidden_activation' is \"relu6\""),
        ("nomic-bert", {"prenorm": True}, "'prenorm' is true"),
        ("nomic-bert", {"rotary_emb_interleaved": True}, "'rotary_emb_interleaved' is true"),
        ("nomic-bert", {"rotary_emb_fraction": 0.5}, "'rotary_emb_fraction' is 0.5"),
        ("nomic-bert", {"rotary_emb_scale_base": 512}, "is 512; it must be null"),
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


def test_a_damaged_weight_is_named(
    make: Make, damage: Callable[[Path], str], refused: Callable[..., str], family: str
) -> None:
    folder = make(family).folder
    assert damage(folder) in refused(folder)


def test_a_config_of_another_size_is_refused(
    make: Make, contradiction: Callable[[Path], None], refused: Callable[..., str], family: str
) -> None:
    folder = make(family).folder
    contradiction(folder)
    line = refused(folder)
    assert "config.json" in line or "missing" in line


def test_logn_attention_is_refused(make: Make, refused: Callable[..., str]) -> None:
    assert "logn_attention_scale" in refused(make("new", logn_attention_scale=True).folder)


def test_a_transformer_of_the_repositorys_own_is_refused(make: Make) -> None:
    tiny = make("gte")
    module = {"type": "custom_st.Transformer", "path": ""}
    (tiny.folder / "modules.json").write_text(json.dumps([module]), encoding="utf-8")
    with pytest.raises(ExportError, match=re.escape("'type' is \"custom_st.Transformer\"")):
        tiny.source()


def test_a_weight_too_few_or_too_many_is_named(make: Make, tmp_path: Path, family: str) -> None:
    tiny = make(family)
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
