"""Recipes: one file for each architecture, and the folder is the registry."""

import json
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import Activation, Heads
from embed_export.masked_lm import MaskedLm
from embed_export.weights import Weights
from embed_runtime.manifest import PoolingMode, Positions, PromptMarks
from embed_runtime.types import FloatArray, Precision

# Where the user's choice of an adapter stands in a config.json, as if that had it.
TASK_ADAPTER = "task_adapter"

# What class names end in where a head lies on the backbone.
_HEAD = re.compile(r"(For[A-Z]\w*|LMHeadModel|ChatModel)$")

Original: TypeAlias = Callable[[Sequence[int]], Sequence[npt.NDArray[np.float64]]]

# transformers' names (activations.py, ACT2FN) for the functions `layers.activate` knows.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of one model.

    Attributes:
        max_tokens: Longest input its positions allow, special tokens included.
        positions: How its position ids count.
    """

    hidden_size: int
    num_layers: int
    vocab_size: int
    max_tokens: int
    positions: Positions


def _as_published(config: JsonObject) -> dict[str, object]:
    return dict(config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is special about one architecture; a cousin is this with a few fields replaced.

    Attributes:
        architectures: Names in `architectures` of config.json that this recipe exports.
        examples: Published models, for people.
        shape: Reads the sizes; raises ExportError for settings the recipe cannot do.
        backbone: Writes the layers; returns the last hidden state, a token tensor.
        attention: What a token sees, for people.
        longest: Which settings of config.json bound an input, for people.
        model_type: What config.json calls it; None where that is the name of the recipe's file.
        matches: Tells from config.json whether this recipe is the one, ahead of another for the
            same type and architecture; None for the one that takes the rest.
        pooling: What to do where no Sentence-Transformers files say it.
        find_pooling: Reads it from config.json, instead of `pooling`.
        include_prompt: Whether the tokens of a prompt are pooled with the others.
        prompt_marks: How a text shows that it brings its own prompt.
        prompts: Texts to put in front, by name, where no file says it.
        default_prompt: Name of the one used when the caller names none.
        matryoshka: Sizes that published models were trained to be cut to, where no file says it,
            by the last part of a model's name; a bare number is the smallest of any.
        centers_cuts: See `Dimensions.center`.
        prefixes: What published names may start with, before the names `backbone` uses.
        unused: Patterns of weights that an embedding never needs.
        masked_lm: The head that scores words, of which sparse vectors are made; None without one.
        weighing_layer: Name of a layer that weighs tokens where it gives one value for each.
        precisions: What such a model can be exported in.
        precision_limit: Why not in the others.
        native_config: Turns config.json into that of transformers' own class for this model.
        native_head: Gives the [D, H] matrix which that class lacks, applied to each token.
        native_weights: Gives the tensors for that class, where it cannot read the published ones.
        original: Computes the model where transformers has no such class: from one row of ids to
            its [T, H] states after each layer.
        find_adapters: Lists a checkpoint's adapters, by the names of their tasks. The graph has an
            input that chooses among them, unless `TASK_ADAPTER` names one to merge.
        custom_modules: Types in modules.json whose code lies in the repository, and which do what
            Sentence-Transformers' own Transformer does; that code is never run.
    """

    architectures: tuple[str, ...]
    examples: tuple[str, ...]
    shape: Callable[[JsonObject], Shape]
    backbone: Callable[[Graph, JsonObject, Weights], Value]
    attention: str = "both ways"
    longest: str = "max_position_embeddings"
    model_type: str | None = None
    matches: Callable[[JsonObject], bool] | None = None
    pooling: PoolingMode = "cls"
    find_pooling: Callable[[JsonObject], PoolingMode] | None = None
    include_prompt: bool = True
    prompt_marks: PromptMarks | None = None
    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    matryoshka: Mapping[str, tuple[int, ...] | int] = field(
        default_factory=dict[str, tuple[int, ...] | int]
    )
    centers_cuts: bool = False
    prefixes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    masked_lm: MaskedLm | None = None
    weighing_layer: str | None = None
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    precision_limit: str = "its activations leave that range"
    native_config: Callable[[JsonObject], Mapping[str, object]] = _as_published
    native_head: Callable[[JsonObject, Weights], FloatArray] | None = None
    native_weights: Callable[[JsonObject, Weights], Mapping[str, FloatArray]] | None = None
    original: Callable[[JsonObject, Weights], Original] | None = None
    find_adapters: Callable[[JsonObject], tuple[str, ...]] | None = None
    custom_modules: tuple[str, ...] = ()

    def allows_unused(self, name: str) -> bool:
        """Tell whether a weight may stay unread."""
        return any(re.fullmatch(pattern, name) for pattern in self.unused)


def read_activation(config: JsonObject, key: str) -> Activation:
    """Read an activation function's name.

    Raises:
        ExportError: It is one we do not compute.
    """
    name = config.require(key, str)
    if name not in _ACTIVATIONS:
        raise config.wrong(key, f"one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def refuse(config: JsonObject, key: str, *allowed: object) -> None:
    """Stop at a setting that the recipe would get wrong; null and none at all are always allowed.

    Raises:
        ExportError: `key` is there with a value that is not allowed.
    """
    value = config.get(key)
    if value is not None and value not in allowed:
        raise config.wrong(key, " or ".join(json.dumps(word) for word in (*allowed, None)))


def even_heads(
    config: JsonObject, *, width: str = "hidden_size", heads: str = "num_attention_heads"
) -> Heads:
    """Read how the hidden size is split evenly among attention heads; keys may have other names.

    Raises:
        ExportError: It does not divide.
    """
    hidden_size, num_heads = config.require(width, int), config.require(heads, int)
    if num_heads < 1 or hidden_size % num_heads:
        raise ExportError(
            f"{config.source}: {width}={hidden_size} is no multiple of {heads}={num_heads}"
        )
    return Heads(num_heads=num_heads, head_size=hidden_size // num_heads)


@cache
def recipes() -> dict[str, Recipe]:
    """Return every recipe under the name of its file, with `-` for `_`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found: dict[str, Recipe] = {}
    for name in names:
        recipe = import_module(f"{__name__}.{name}").RECIPE
        assert isinstance(recipe, Recipe)
        found[name.replace("_", "-")] = recipe
    return found


def find_recipe(config: JsonObject, architecture: str, *, any_head: bool = False) -> Recipe:
    """Find the recipe for a checkpoint.

    Args:
        config: Its config.json.
        architecture: The architecture that names.
        any_head: Whether a recipe for the same backbone will do, whatever head it has here.

    Raises:
        UnsupportedModelError: Nobody wrote one; the message lists the nearest.
        ExportError: Architecture and model type belong to different recipes.
    """
    model_type = config.require("model_type", str)
    by_type: dict[str, list[Recipe]] = {}
    for name, recipe in recipes().items():
        by_type.setdefault(_normal(recipe.model_type or name), []).append(recipe)
    kin = by_type.get(_normal(model_type), [])
    names = {architecture, _HEAD.sub("Model", architecture)} if any_head else {architecture}
    fitting = [
        recipe
        for recipe in kin
        if not names.isdisjoint(recipe.architectures)
        and (not recipe.matches or recipe.matches(config))
    ]
    if fitting:
        return min(fitting, key=lambda recipe: recipe.matches is None)
    owners = [
        kind
        for kind, others in by_type.items()
        if others is not kin and any(architecture in one.architectures for one in others)
    ]
    if kin and owners:
        # Its name says another computation than the type's; tracing would not know, either.
        raise ExportError(
            f"architecture {architecture!r} is of model type {owners[0]!r}, but config.json says"
            f" {model_type!r}; set whichever is wrong with --hf-overrides"
        )
    if kin:
        allowed = [name for recipe in kin for name in recipe.architectures]
        raise UnsupportedModelError(
            f"architecture {architecture!r} is not one of model type {model_type!r} that can be"
            f" exported ({', '.join(allowed)}); if its backbone is the same, name one of them:"
            f""" --hf-overrides '{{"architectures": ["{allowed[0]}"]}}'"""
        )
    nearest = get_close_matches(_normal(model_type), by_type, n=3, cutoff=0.3) or sorted(by_type)
    raise UnsupportedModelError(
        f"no recipe for model type {model_type!r} ({architecture}); the nearest are"
        f" {', '.join(nearest)}; see CONTRIBUTING.md, adding an architecture"
    )


def _normal(model_type: str) -> str:
    return model_type.replace("_", "-")
