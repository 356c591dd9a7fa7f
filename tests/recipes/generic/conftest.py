"""Tiny checkpoints of architectures without a recipe, saved by transformers itself."""

# transformers and torch leave the types of what they give open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

Make = Callable[..., Any]

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.5, 2.0],
    "long_factor": [2.0, 3.0, 5.0, 8.0],
    "original_max_position_embeddings": 64,
}

# The config.json of each, by a name for tests.
_CONFIGS: dict[str, dict[str, Any]] = {
    "phi3": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        **_SIZES,
        "num_hidden_layers": 2,
    },
    "phi3-longrope": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        **_SIZES,
        "dtype": "bfloat16",
        "original_max_position_embeddings": 64,
        "rope_parameters": _LONGROPE,
    },
    "eurobert": {"model_type": "eurobert", "architectures": ["EuroBertModel"], **_SIZES},
    "mixtral": {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        **_SIZES,
        "dtype": "bfloat16",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        **_SIZES,
        "head_dim": 16,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
    },
    "olmo2": {
        "model_type": "olmo2",
        "architectures": ["Olmo2ForCausalLM"],
        **_SIZES,
        "is_causal": False,
    },
    "stablelm": {
        "model_type": "stablelm",
        "architectures": ["StableLmForCausalLM"],
        **_SIZES,
    },
    "mamba": {
        "model_type": "mamba",
        "architectures": ["MambaForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "max_position_embeddings": 64,
    },
    # Positions count from behind the padding's id, so that fewer tokens fit than there are.
    "xlm-roberta-xl": {
        "model_type": "xlm-roberta-xl",
        "architectures": ["XLMRobertaXLModel"],
        **_SIZES,
        "pad_token_id": 1,
    },
    "dynamic-rope": {
        "model_type": "olmo2",
        "architectures": ["Olmo2ForCausalLM"],
        **_SIZES,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    },
}


@pytest.fixture(scope="session")
def make_native(
    tmp_path_factory: pytest.TempPathFactory, make_decoder: Make
) -> Callable[..., Path]:
    """Writes a checkpoint: `make_native("phi3")`; keyword arguments replace config.json's keys.

    A *ForCausalLM is saved with its language head, as it is published.
    """
    tokenizer = make_decoder("qwen3").folder

    def make(name: str, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp(f"native-{name}-")
        settings = {**_CONFIGS[name], "vocab_size": 420, **changes}
        _save(settings, folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / file, folder / file)
        return folder

    return make


def _save(settings: Mapping[str, Any], folder: Path) -> None:
    config: Any = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(dict(settings))
    is_causal = settings["architectures"][0].endswith("ForCausalLM")
    create: Any = transformers.AutoModelForCausalLM if is_causal else transformers.AutoModel
    torch.manual_seed(0)
    model = create.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        # Larger than a fresh model's, so that every part of it shows in the vectors.
        for name, parameter in model.named_parameters():
            offset = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(offset, 0.2)
    model.to(getattr(torch, settings.get("dtype", "float32"))).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **settings}))
