"""The original model, run by its own library in float32: what every engine is compared with."""

# transformers leaves the types of what it loads open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch

from embed_export.checkpoint import Checkpoint
from embed_export.errors import ExportError
from embed_export.json_object import JsonObject
from embed_export.model_spec import ModelSpec
from embed_export.native import Loaded, load_native, one_line
from embed_export.plain_heads import HeadReferences, weigh_words
from embed_export.pooler import SMALLEST_NORM
from embed_export.probe import Reference
from embed_export.progress import Advance
from embed_export.recipes import TASK_ADAPTER, Recipe
from embed_export.tokenizer import ResolvedTokenizer
from embed_export.weights import SourceDtype, Weights, strip_prefix
from embed_export.widening import compute_in_float32
from embed_runtime.manifest import Activation, PoolingMode

_DoubleArray: TypeAlias = npt.NDArray[np.float64]
# From one row of ids to its [T, H] states after each layer and, of a masked language model, to the
# [T, V] scores of words.
_Run: TypeAlias = Callable[
    [Sequence[int]], tuple[Sequence[_DoubleArray], npt.NDArray[np.floating] | None]
]

# With each task goes one text in so many, none of the long ones: the layers are the same.
_TASK_STRIDE = 4
_MAX_TASK_TOKENS = 512

_ACTIVATIONS: dict[Activation, Callable[[float], float]] = {
    "identity": lambda x: x,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "sigmoid": lambda x: 0.5 * (1 + math.tanh(x / 2)),
    "silu": lambda x: x * 0.5 * (1 + math.tanh(x / 2)),
}


_DTYPES: dict[SourceDtype, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class _Outputs(Protocol):
    """Besides these, `last_hidden_state` or, of a masked language model, `logits`."""

    hidden_states: tuple[torch.Tensor, ...]


class _Backbone(Protocol):
    """What we use of a transformers model."""

    def __call__(
        self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, output_hidden_states: bool
    ) -> _Outputs: ...


def run_original(
    checkpoint: Checkpoint,
    recipe: Recipe,
    spec: ModelSpec,
    tokenizer: ResolvedTokenizer,
    texts: Sequence[str],
    advance: Advance,
) -> Reference:
    """Embed the probe texts with the original model, one at a time.

    Nothing here uses our graphs, kernels or batches: token vectors come from transformers, or from
    the recipe's own plain computation where that has no such model, and pooling is written once
    more, for one text and in float64.

    Raises:
        ExportError: transformers cannot load the checkpoint, or finds weights missing.
    """
    head = recipe.native_head and recipe.native_head(checkpoint.config, checkpoint.weights)
    probes = _choose_probes(spec, tokenizer, texts)
    vectors: list[_DoubleArray] = []
    heads = HeadReferences(spec)
    max_activation = 0.0
    with torch.inference_mode():
        for task, probe in groupby(probes, key=itemgetter(0)):
            run = _load(_with_task(checkpoint, task), recipe, with_words=spec.splade is not None)
            prompt = "" if task is None else spec.prompts[task]
            for _, text in probe:
                row = tokenizer.encode(prompt + text, max_tokens=spec.max_tokens)
                states, scores = run(row)
                largest = max(float(np.abs(layer).max()) for layer in states)
                max_activation = max(max_activation, largest)
                tokens = states[-1]
                if head is not None:
                    tokens = tokens @ head.astype(np.float64).T
                if spec.splade is None:
                    vectors.append(_finish(tokens, spec))
                else:
                    assert scores is not None
                    vectors.append(weigh_words(scores, spec.splade))
                if task is None:
                    heads.add(row, tokens, vectors[-1])
                advance(len(vectors), len(probes))
    libraries = ("torch", "transformers") if recipe.original is None else ("numpy", "torch")
    return Reference(
        texts=tuple(text for _, text in probes),
        tasks=tuple(task for task, _ in probes) if spec.adapters else (),
        vectors=np.stack(vectors).astype(np.float32),
        sparse=heads.sparse(),
        tokens=heads.tokens(),
        max_activation=max_activation,
        versions={name: version(name) for name in libraries},
    )


def _choose_probes(
    spec: ModelSpec, tokenizer: ResolvedTokenizer, texts: Sequence[str]
) -> list[tuple[str | None, str]]:
    """Pair texts with tasks: all of them with none, some with each."""
    short = [text for text in texts if tokenizer.count(text) <= _MAX_TASK_TOKENS]
    probes: list[tuple[str | None, str]] = [(None, text) for text in texts]
    for number, task in enumerate(spec.adapters):
        probes += [(task, text) for text in short[number % _TASK_STRIDE :: _TASK_STRIDE]]
    return probes


def _with_task(checkpoint: Checkpoint, task: str | None) -> Checkpoint:
    """Have a task's adapter merged, as `--task-adapter` would."""
    if task is None:
        return checkpoint
    config = JsonObject({**checkpoint.config, TASK_ADAPTER: task}, source=checkpoint.config.source)
    return replace(checkpoint, config=config)


def _load(checkpoint: Checkpoint, recipe: Recipe, *, with_words: bool) -> _Run:
    """Load the original in float32; weights that are missing stop the export.

    transformers only warns about them, and fills in random numbers.
    """
    weights = checkpoint.weights.renamed(strip_prefix(*recipe.prefixes))
    if recipe.original is not None:
        original = recipe.original(checkpoint.config, weights)
        return lambda row: (original(row), None)
    settings, folder = recipe.native_config(checkpoint.config), checkpoint.model_folder
    tensors = _native_tensors(checkpoint, recipe, weights)
    dtype = torch.float32 if tensors else _DTYPES[weights.source_dtype]

    def load(dtype: torch.dtype) -> Loaded:
        return load_native(settings, folder, dtype=dtype, tensors=tensors, with_words=with_words)

    loaded = load(dtype)
    if dtype != torch.float32 and not compute_in_float32(loaded.model):
        loaded = load(torch.float32)
    # What embeddings never need, weights of words do.
    missing = [name for name in loaded.missing if with_words or not recipe.allows_unused(name)]
    if missing:
        raise ExportError(f"the original model lacks weight {missing[0]!r}; fetch it again")
    return lambda row: _run(cast("_Backbone", loaded.model), row)


def _native_tensors(
    checkpoint: Checkpoint, recipe: Recipe, weights: Weights
) -> dict[str, torch.Tensor] | None:
    if recipe.native_weights is None:
        return None
    tensors = recipe.native_weights(checkpoint.config, weights)
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}


def _run(
    model: _Backbone, row: Sequence[int]
) -> tuple[list[_DoubleArray], npt.NDArray[np.floating] | None]:
    input_ids = torch.tensor([list(row)])
    try:
        outputs = model(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            output_hidden_states=True,
        )
    except (IndexError, RuntimeError) as error:  # torch's, for a table that is too short
        raise ExportError(
            f"the original model fails on a text of {len(row)} tokens ({one_line(error)}); export"
            " with a smaller --max-length"
        ) from error
    logits, last = getattr(outputs, "logits", None), getattr(outputs, "last_hidden_state", None)
    states = [*outputs.hidden_states, *([] if last is None else [last])]
    return (
        [layer[0].double().numpy() for layer in states],
        None if logits is None else logits[0].numpy(),
    )


def _finish(tokens: _DoubleArray, spec: ModelSpec) -> _DoubleArray:
    """Pool [T, H] token vectors, apply the heads, normalize: one [D] vector."""
    vector = np.concatenate([_pool(tokens, mode) for mode in spec.pooling.modes])
    for head in spec.heads:
        weight, bias = head.read()
        vector = weight.astype(np.float64) @ vector
        if bias is not None:
            vector = vector + bias
        activation = _ACTIVATIONS[head.spec.activation]
        vector = np.array([activation(float(value)) for value in vector])
    if spec.normalize:
        vector = vector / max(float(np.linalg.norm(vector)), SMALLEST_NORM)
    return vector


def _pool(tokens: _DoubleArray, mode: PoolingMode) -> _DoubleArray:
    vector: _DoubleArray
    match mode:
        case "cls":
            vector = tokens[0]
        case "lasttoken":
            vector = tokens[-1]
        case "max":
            vector = tokens.max(axis=0)
        case "mean":
            vector = tokens.mean(axis=0)
        case "mean_sqrt_len_tokens":
            vector = tokens.sum(axis=0) / math.sqrt(len(tokens))
        case "weightedmean":
            weights = np.arange(1, len(tokens) + 1)
            vector = weights @ tokens / weights.sum()
    return vector
