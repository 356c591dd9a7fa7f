"""The original model, run by its own library in float32: what every engine is compared with."""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import transformers

from embed_export.checkpoint import Checkpoint
from embed_export.errors import ExportError
from embed_export.model_spec import ModelSpec
from embed_export.progress import Advance
from embed_export.recipes import Recipe
from embed_export.tokenizer import ResolvedTokenizer
from embed_export.verify import Reference
from embed_runtime.manifest import PoolingMode

_ACTIVATIONS = {
    "identity": torch.nn.Identity(),
    "tanh": torch.nn.Tanh(),
    "relu": torch.nn.ReLU(),
    "gelu": torch.nn.GELU(),
    "sigmoid": torch.nn.Sigmoid(),
    "silu": torch.nn.SiLU(),
}


def run_original(
    checkpoint: Checkpoint,
    recipe: Recipe,
    spec: ModelSpec,
    tokenizer: ResolvedTokenizer,
    texts: Sequence[str],
    advance: Advance,
) -> Reference:
    """Embed the probe texts with the original model, one at a time.

    Nothing here uses our graphs, kernels or batches: tokens come from the checkpoint's tokenizer,
    token vectors from transformers, and pooling is written once more, for one text.

    Raises:
        ExportError: transformers cannot load the checkpoint, or finds weights missing.
    """
    model = _load(checkpoint, recipe)
    vectors: list[torch.Tensor] = []
    max_activation = 0.0
    with torch.inference_mode():
        for index, text in enumerate(texts):
            input_ids = torch.tensor([tokenizer.encode(text, max_tokens=spec.max_tokens)])
            outputs = model(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                output_hidden_states=True,
            )
            largest = max(float(states.abs().max()) for states in outputs.hidden_states)
            max_activation = max(max_activation, largest)
            vectors.append(_finish(outputs.last_hidden_state[0].float(), spec))
            advance(index + 1, len(texts))
    return Reference(
        texts=tuple(texts),
        vectors=np.ascontiguousarray(torch.stack(vectors).numpy(), dtype=np.float32),
        max_activation=max_activation,
        versions={name: version(name) for name in ("torch", "transformers")},
    )


def _load(checkpoint: Checkpoint, recipe: Recipe) -> Any:
    """Load the backbone; weights that are missing or not allowed to be left over stop the export.

    transformers only warns about either, and fills in random numbers.
    """
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.for_model(**dict(checkpoint.config))
        model, loading = transformers.AutoModel.from_pretrained(
            checkpoint.model_folder,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"transformers cannot load the original model: {reason}") from error
    missing = [name for name in loading["missing_keys"] if not recipe.allows_unused(name)]
    if missing:
        raise ExportError(
            f"the original model lacks weight {sorted(missing)[0]!r}; fetch the checkpoint again"
        )
    return model.eval()


def _finish(tokens: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Pool [T, H] token vectors, apply the heads, normalize: one [D] vector."""
    vector = torch.cat([_pool(tokens, mode) for mode in spec.pooling.modes])
    for head in spec.heads:
        weight, bias = head.read()
        vector = torch.from_numpy(weight) @ vector
        if bias is not None:
            vector = vector + torch.from_numpy(bias)
        vector = _ACTIVATIONS[head.spec.activation](vector)
    return torch.nn.functional.normalize(vector, dim=0) if spec.normalize else vector


def _pool(tokens: torch.Tensor, mode: PoolingMode) -> torch.Tensor:
    match mode:
        case "cls":
            return tokens[0]
        case "lasttoken":
            return tokens[-1]
        case "max":
            return tokens.max(dim=0).values
        case "mean":
            return tokens.mean(dim=0)
        case "mean_sqrt_len_tokens":
            return tokens.sum(dim=0) / len(tokens) ** 0.5
        case "weightedmean":
            weights = torch.arange(1, len(tokens) + 1, dtype=tokens.dtype)
            return (weights[:, None] * tokens).sum(dim=0) / weights.sum()
