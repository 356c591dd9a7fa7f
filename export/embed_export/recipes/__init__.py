"""Recipes: one file for each architecture, and the folder is the registry."""

import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import Activation
from embed_export.weights import Weights
from embed_runtime.manifest import PoolingMode, Positions

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is special about one architecture; a cousin is this with a few fields replaced.

    Attributes:
        architectures: Names in `architectures` of config.json that this recipe exports.
        examples: Published models, for people.
        shape: Reads the sizes; raises ExportError for settings the recipe cannot do.
        backbone: Writes the layers; returns the last hidden state, a token tensor.
        pooling: What to do where no Sentence-Transformers files say it.
        prefixes: What published names may start with, before the names `backbone` uses.
        unused: Patterns of weights that an embedding never needs.
    """

    architectures: tuple[str, ...]
    examples: tuple[str, ...]
    shape: Callable[[JsonObject], Shape]
    backbone: Callable[[Graph, JsonObject, Weights], Value]
    pooling: PoolingMode = "cls"
    prefixes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

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
    """Stop at a setting that the recipe would get wrong.

    Raises:
        ExportError: `key` is there with a value that is not allowed.
    """
    value = config.get(key)
    if value is not None and value not in allowed:
        raise config.wrong(key, " or ".join(repr(word) for word in allowed))


def head_size(config: JsonObject, *, width: str, heads: str) -> int:
    """Divide the hidden size by the number of heads.

    Raises:
        ExportError: It does not divide.
    """
    hidden_size, num_heads = config.require(width, int), config.require(heads, int)
    if num_heads < 1 or hidden_size % num_heads:
        raise ExportError(
            f"{config.source}: {width}={hidden_size} is no multiple of {heads}={num_heads}"
        )
    return hidden_size // num_heads


@cache
def recipes() -> dict[str, Recipe]:
    """Return every recipe under the model_type it is for."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found: dict[str, Recipe] = {}
    for name in names:
        recipe = import_module(f"{__name__}.{name}").RECIPE
        assert isinstance(recipe, Recipe)
        found[name.replace("_", "-")] = recipe
    return found


def find_recipe(model_type: str, architecture: str) -> Recipe:
    """Find the recipe for a checkpoint.

    Raises:
        UnsupportedModelError: Nobody wrote one; the message lists the nearest.
    """
    known = recipes()
    recipe = known.get(model_type.replace("_", "-"))
    if recipe is not None and architecture in recipe.architectures:
        return recipe
    if recipe is not None:
        allowed = ", ".join(recipe.architectures)
        raise UnsupportedModelError(
            f"architecture {architecture!r} is not one of model type {model_type!r} that can be"
            f" exported ({allowed}); if its backbone is the same, name one of them:"
            f""" --hf-overrides '{{"architectures": ["{recipe.architectures[0]}"]}}'"""
        )
    nearest = get_close_matches(model_type, known, n=3, cutoff=0.3) or sorted(known)
    raise UnsupportedModelError(
        f"no recipe for model type {model_type!r} ({architecture}); the nearest are"
        f" {', '.join(nearest)}; see CONTRIBUTING.md, adding an architecture"
    )
