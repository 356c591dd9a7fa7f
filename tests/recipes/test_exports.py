"""Whole exports: checkpoint to bundle to vectors, one for each decoder recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer

from embed_export.errors import ExportError
from embed_export.limits import TOLERANCES
from embed_runtime import Runtime

pytestmark = pytest.mark.usefixtures("fast_exports")

Array = npt.NDArray[Any]
Export = Callable[..., Path]
Make = Callable[..., Any]

TEXTS = [
    "a",
    "the quick brown fox",
    "Instruct: find passages\nQuery: how do plants make sugar? " * 2,
    "Grüße aus München, 今日は良い天気です \U0001f642",
]


def baked(bundle: Path) -> Tokenizer:
    return Tokenizer.from_file(str(bundle / "tokenizer.json"))


def unit(vector: Array) -> Array:
    result: Array = vector / np.linalg.norm(vector)
    return result


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("llama", "lasttoken"),
        ("mistral", "lasttoken"),
        ("llama-bidirec", "mean"),
        ("qwen2-both-ways", "lasttoken"),
        ("qwen3", "lasttoken"),
        ("voyage-qwen3", "mean"),
        ("gemma2", "lasttoken"),
        ("gemma3-text", "mean"),
    ],
)
def test_without_files_the_family_decides(
    name: str, pooling: str, make_decoder: Make, export: Export
) -> None:
    decoder = make_decoder(name)
    bundle = export(decoder.folder)
    original = decoder.original()
    with Runtime(bundle) as runtime:
        assert runtime.manifest.pooling.modes == (pooling,)
        policy = runtime.manifest.precision_policy
        assert policy is not None
        assert ("fp16" in policy.allowed) == (name != "gemma3-text")
        vectors = runtime.embed(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        tokens = original(baked(bundle).encode(text).ids)
        expected = unit(tokens[-1] if pooling == "lasttoken" else tokens.mean(axis=0))
        assert expected @ vector >= TOLERANCES["fp32"].cosine_min
        assert np.abs(vector - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "pooling"), [("qwen3", "lasttoken"), ("gemma3-text", "mean_tokens")]
)
def test_sentence_transformers_agrees(
    name: str, pooling: str, make_decoder: Make, export: Export, load_model: Callable[..., Any]
) -> None:
    dense = (48, 32) if name == "gemma3-text" else ()
    checkpoint = make_decoder(name, pooling=pooling, dense=dense).folder
    # Else it computes in the type that config.json names.
    model = load_model(checkpoint, model_kwargs={"dtype": torch.float32})
    expected: Array = model.encode(TEXTS, batch_size=1)
    with Runtime(export(checkpoint)) as runtime:
        vectors = runtime.embed(TEXTS)
        alone = np.stack([runtime.embed(text) for text in TEXTS])
        backwards = runtime.embed(TEXTS[::-1])[::-1]
    assert np.abs(vectors - expected).max() < 1e-5
    assert np.abs(alone - vectors).max() < 2e-6
    assert np.abs(backwards - vectors).max() < 2e-6


def test_the_manifest_says_which_precisions_hold_the_activations(
    make_decoder: Make, export: Export
) -> None:
    table = "model.embed_tokens.weight"
    wide = make_decoder("llama", extra={table: make_decoder("llama").tensors[table] * 1e5})
    with Runtime(export(wide.folder)) as runtime:
        policy = runtime.manifest.precision_policy
    assert policy is not None
    assert policy.max_activation > 2e4
    assert policy.allowed == ("fp32", "bf16", "int8")
    with pytest.raises(ExportError, match="export with --bf16"):
        export(wide.folder, precision="fp16")


def test_gritlm_pools_without_the_prompt(make_decoder: Make, export: Export) -> None:
    decoder = make_decoder("gritlm")
    bundle = export(decoder.folder)
    original = decoder.original()
    text = "how do plants make sugar?"
    instructed = "<|user|>\nfind passages\n<|embed|>\n"
    with Runtime(bundle) as runtime:
        manifest = runtime.manifest
        assert (manifest.pooling.modes, manifest.pooling.include_prompt) == (("mean",), False)
        assert manifest.prompts[manifest.default_prompt or ""] == "<|embed|>\n"
        by_default = runtime.embed(text)
        with_instruction = runtime.embed(text, prompt=instructed)
    for prompt, found in (("<|embed|>\n", by_default), (instructed, with_instruction)):
        ids = baked(bundle).encode(prompt + text).ids
        num_prompt = len(baked(bundle).encode(prompt).ids) - 1  # without the EOS at its end
        expected = unit(original(ids)[num_prompt:].mean(axis=0))
        assert np.abs(found - expected).max() < 1e-5
    assert by_default @ with_instruction < 0.999, "the instruction is not attended to"


def test_a_mistral_exports_as_gritlm_where_the_user_says_so(
    make_decoder: Make, export: Export
) -> None:
    decoder = make_decoder(
        "gritlm", config={"architectures": ["MistralForCausalLM"], "auto_map": {}}
    )
    bundle = export(decoder.folder, hf_overrides={"architectures": ["GritLM"]})
    with Runtime(bundle) as runtime:
        assert runtime.manifest.model.architecture == "GritLM"
        assert not runtime.manifest.pooling.include_prompt


def test_attention_follows_the_override(make_decoder: Make, export: Export) -> None:
    decoder = make_decoder("qwen2")
    causal = export(decoder.folder)
    both_ways = export(decoder.folder, hf_overrides={"is_causal": False})
    with Runtime(causal) as one, Runtime(both_ways) as other:
        assert one.embed(TEXTS[1]) @ other.embed(TEXTS[1]) < 0.999


def test_an_added_token_beyond_the_vocabulary_is_no_obstacle(
    make_decoder: Make, export: Export
) -> None:
    checkpoint = make_decoder("gemma3-text").folder
    path = checkpoint / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    image = {"id": 420, "content": "<image_soft_token>", "special": True, **flags}
    tokenizer["added_tokens"].append(image)
    path.write_text(json.dumps(tokenizer))
    with Runtime(export(checkpoint)) as runtime:
        assert runtime.manifest.tokenizer.vocab_size == 420
        assert np.isfinite(runtime.embed("an <image")).all()
