"""NVIDIA's Llama that looks both ways; its config says how tokens are pooled."""

from dataclasses import replace

from embed_export.decoder_config import both_ways, decoder_recipe
from embed_export.json_object import JsonObject
from embed_export.recipes.llama import read_llama
from embed_runtime.manifest import PoolingMode

_POOLING: dict[str, PoolingMode] = {"avg": "mean", "cls": "cls", "last": "lasttoken"}


def find_pooling(config: JsonObject) -> PoolingMode:
    """Read `pooling`, which has no default.

    Raises:
        ExportError: It is missing, or a word we do not compute.
    """
    config.require("pooling", str)
    mode = config.find_word("pooling", _POOLING)
    assert mode is not None
    return mode


def _as_llama(config: JsonObject) -> JsonObject:
    return JsonObject({**both_ways(config), "model_type": "llama"}, source=config.source)


RECIPE = replace(
    decoder_recipe(
        read_llama,
        architectures=("LlamaBidirectionalModel",),
        examples=("nvidia/llama-nemotron-embed-1b-v2",),
        attention="both ways",
        complete=_as_llama,
    ),
    pooling="mean",
    find_pooling=find_pooling,
    matryoshka={"llama-nemotron-embed-1b-v2": (384, 512, 768, 1024)},
)
