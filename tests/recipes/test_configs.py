"""What recipes make of config.json: which one it is, what it says, what they refuse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from embed_export.cli import main
from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.json_object import JsonObject
from embed_export.recipes import find_recipe, recipes
from embed_export.recipes.mistral import read_mistral
from embed_export.rope_config import read_rope

Settings = dict[str, Any]


def as_config(settings: Settings) -> JsonObject:
    return JsonObject(settings, source="config.json")


@pytest.fixture
def published(families: dict[str, Any]) -> dict[str, Settings]:
    """Every family's config.json."""
    return {name: {**family.config, "vocab_size": 420} for name, family in families.items()}


def test_every_decoder_is_identified(published: dict[str, Settings]) -> None:
    for name, settings in published.items():
        recipe = find_recipe(as_config(settings), settings["architectures"][0])
        expected = {
            "llama-biases": "llama",
            "qwen2-both-ways": "qwen2",
            "qwen2-sliding": "qwen2",
            "qwen2-sliding-both-ways": "qwen2",
            "gemma3-causal": "gemma3-text",
        }.get(name, name)
        assert recipe is recipes()[expected], name


@pytest.mark.parametrize(
    ("model_type", "architecture", "expected"),
    [
        ("mistral", "MistralForCausalLM", "mistral"),
        ("mistral", "GritLM", "gritlm"),
        ("qwen3", "Qwen3Model", "qwen3"),
        ("qwen3", "VoyageQwen3BidirectionalEmbedModel", "voyage-qwen3"),
        ("llama_bidirec", "LlamaBidirectionalModel", "llama-bidirec"),
        ("bert", "BertModel", "bert"),
    ],
)
def test_architectures_that_share_a_type(model_type: str, architecture: str, expected: str) -> None:
    config = as_config({"model_type": model_type})
    assert find_recipe(config, architecture) is recipes()[expected]


def test_an_unknown_architecture_of_a_known_type_lists_all_of_that_type() -> None:
    config = as_config({"model_type": "mistral"})
    with pytest.raises(UnsupportedModelError) as caught:
        find_recipe(config, "MistralForTokenClassification")
    message = str(caught.value)
    assert all(name in message for name in ("GritLM", "MistralModel", "MistralForCausalLM"))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ("dynamic", "yarn")),
        ("llama", {"rope_scaling": {"rope_type": "mrope"}}, ("mrope", "rope_type")),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, ("factor", "missing")),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}}, ("factor", "1 or more")),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2, "x": 1}}, ("'x'", "linear")),
        ("llama", {"rope_parameters": {"rope_theta": 1e4}}, ("rope_scaling", "rope_parameters")),
        ("llama", {"partial_rotary_factor": 0.5}, ("partial_rotary_factor",)),
        ("llama", {"rope_theta": 0.5}, ("rope_theta", "0.5")),
        ("llama", {"head_dim": 7}, ("head size", "7")),
        ("llama", {"num_key_value_heads": 3}, ("num_key_value_heads=3",)),
        ("llama", {"num_attention_heads": 6}, ("num_attention_heads=6",)),
        ("llama", {"hidden_act": "mish"}, ("mish", "silu")),
        ("llama", {"intermediate_size": None}, ("intermediate_size", "missing")),
        (
            "llama",
            {"is_causal": True, "use_bidirectional_attention": True},
            ("is_causal", "use_bidirectional_attention"),
        ),
        ("llama", {"auto_map": {"AutoModel": "m.Model"}}, ("m.Model", '"is_causal": true')),
        (
            "llama",
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 4.0,
                    "high_freq_factor": 4.0,
                }
            },
            ("high_freq_factor", "low_freq_factor=4"),
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}},
            ("short_factor", "4 numbers"),
        ),
        ("mistral", {"layer_types": ["full_attention"] * 2}, ("layer_types",)),
        ("mistral", {"sliding_window": 0}, ("sliding_window",)),
        ("llama-bidirec", {"pooling": None}, ("pooling", "missing")),
        ("llama-bidirec", {"pooling": "colbert"}, ("colbert", "avg")),
        ("qwen2", {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}, ("is_causal",)),
        ("qwen2", {"layer_types": ["full_attention"]}, ("layer_types", "2 times")),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, ("layer_types",)),
        (
            "qwen2",
            {"layer_types": ["full_attention", "sliding_attention"]},
            ("use_sliding_window",),
        ),
        ("qwen2-sliding", {"sliding_window": None}, ("sliding_window", "missing")),
        ("qwen3", {"head_dim": None}, ("head_dim", "missing")),
        ("voyage-qwen3", {"num_labels": None}, ("num_labels", "missing")),
        ("gemma2", {"attn_logit_softcapping": 0}, ("attn_logit_softcapping",)),
        ("gemma2", {"query_pre_attn_scalar": 0}, ("query_pre_attn_scalar",)),
        ("gemma3-text", {"sliding_window": 257}, ("257", '"sliding_window": 512')),
        ("gemma3-text", {"attn_logit_softcapping": 50.0}, ("attn_logit_softcapping",)),
    ],
)
def test_settings_nobody_can_compute_are_named(
    published: dict[str, Settings], name: str, changes: Settings, words: tuple[str, ...]
) -> None:
    config = as_config({**published[name], **changes})
    recipe = find_recipe(config, published[name]["architectures"][0])

    def read() -> None:
        recipe.shape(config)
        if recipe.find_pooling:
            recipe.find_pooling(config)

    with pytest.raises(ExportError) as caught:
        read()
    assert all(word in str(caught.value) for word in words), caught.value


def test_attention_of_gte_qwen2_is_known_by_its_code(published: dict[str, Settings]) -> None:
    code = {"AutoModel": "Alibaba-NLP/gte-Qwen2-7B-instruct--modeling_qwen.Qwen2Model"}
    settings = {**published["qwen2"], "auto_map": code, "hidden_size": 3584}
    recipe = recipes()["qwen2"]
    native = recipe.native_config(as_config(settings))
    assert native["is_causal"] is False
    assert "auto_map" not in native
    settings["is_causal"] = True
    assert recipe.native_config(as_config(settings))["is_causal"] is True


def test_mistral_without_a_window_in_its_config_has_the_librarys(
    published: dict[str, Settings],
) -> None:
    settings = {**published["mistral"], "max_position_embeddings": 32768}
    without = {key: value for key, value in settings.items() if key != "sliding_window"}
    assert read_mistral(as_config(without)).layers[0].window.left == 4095
    assert (
        read_mistral(as_config({**without, "sliding_window": None})).layers[0].window.left is None
    )


@pytest.mark.parametrize("name", ["gemma3-text", "gemma3-causal"])
def test_gemma3_is_not_exported_in_fp16(
    name: str, make_decoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_decoder(name).folder
    assert main([str(checkpoint), "-o", str(tmp_path / "out"), "--fp16"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "--bf16" in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "rope_scaling",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        {"rope_type": "yarn", "factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0},
        {"rope_type": "yarn", "factor": 2.5, "truncate": False, "attention_factor": 0.7},
        {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.4},
        {"rope_type": "longrope", "original_max_position_embeddings": 4096},
        {"rope_type": "longrope", "factor": 8.0, "original_max_position_embeddings": 4096},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
@pytest.mark.parametrize(("theta", "head_size"), [(10_000.0, 64), (500_000.0, 128)])
def test_frequencies_are_transformers(rope_scaling: Settings, theta: float, head_size: int) -> None:
    if rope_scaling["rope_type"] == "longrope":
        factors = np.linspace(1, 9, head_size // 2).tolist()
        rope_scaling = {**rope_scaling, "short_factor": factors, "long_factor": factors}
    settings: Settings = {
        "hidden_size": 4 * head_size,
        "num_attention_heads": 4,
        "max_position_embeddings": 131072,
        "rope_theta": theta,
        "rope_scaling": json.loads(json.dumps(rope_scaling)),
    }
    rope = read_rope(as_config(settings), head_size)
    # transformers leaves its types open.
    native: Any = LlamaConfig.from_dict(settings)  # pyright: ignore[reportUnknownMemberType]
    kind = rope_scaling["rope_type"]
    if kind == "default":
        steps = torch.arange(0, head_size, 2, dtype=torch.float)
        expected, magnitude = 1.0 / (theta ** (steps / head_size)), 1.0
    else:
        expected, magnitude = ROPE_INIT_FUNCTIONS[kind](native, None)
    assert np.abs(rope.frequencies / expected.numpy() - 1).max() < 5e-7
    assert rope.magnitude == pytest.approx(magnitude, rel=1e-7)
    assert rope.max_tokens == (4096 if kind == "longrope" else None)
