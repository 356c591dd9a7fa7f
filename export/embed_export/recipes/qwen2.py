"""Qwen2: Llama with biases on queries, keys and values; gte-Qwen2 looks both ways."""

from dataclasses import replace

from embed_export.decoder import Decoder
from embed_export.decoder_config import (
    both_ways,
    decoder_recipe,
    read_decoder,
    slide,
    sliding_layers,
    sliding_window,
)
from embed_export.json_object import JsonObject

# gte-Qwen2-7B: its published code looks both ways, and its config does not say so. The config of
# the 1.5B model is as silent, but its code was reported to be causal: the user must say which.
_GTE_CODE = "modeling_qwen.Qwen2Model"
_GTE_7B_WIDTH = 3584


def read_qwen2(config: JsonObject) -> Decoder:
    """Read Qwen2's config."""
    return replace(slide_qwen(config, read_decoder(config)), qkv_bias=True)


def slide_qwen(config: JsonObject, decoder: Decoder) -> Decoder:
    """Give Qwen's upper layers their window, where the config turns it on.

    Raises:
        ExportError: Some layers slide, and nothing says how far.
    """
    is_on = config.find("use_sliding_window", bool, default=False)
    first = config.find("max_window_layers", int, 28)
    slides = sliding_layers(config, lambda index: is_on and index >= first)
    if not any(slides):
        return decoder
    if not is_on:
        raise config.wrong("layer_types", "full_attention while use_sliding_window is false")
    return slide(decoder, slides, sliding_window(config, config.require("sliding_window", int)))


def _complete(config: JsonObject) -> JsonObject:
    code = config.find_object("auto_map")
    is_gte = code is not None and (code.find("AutoModel", str) or "").endswith(_GTE_CODE)
    is_silent = config.find("is_causal", bool) is None
    if is_gte and is_silent and config.require("hidden_size", int) == _GTE_7B_WIDTH:
        return both_ways(config)
    return config


RECIPE = decoder_recipe(
    read_qwen2,
    architectures=("Qwen2Model", "Qwen2ForCausalLM"),
    examples=("Alibaba-NLP/gte-Qwen2-7B-instruct", "ssmits/Qwen2-7B-Instruct-embed-base"),
    complete=_complete,
)
