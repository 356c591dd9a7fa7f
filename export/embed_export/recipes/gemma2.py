"""Gemma 2: norms on both sides, soft-capped scores, a window in every other layer."""

from dataclasses import replace

from embed_export.decoder import Decoder
from embed_export.decoder_config import (
    decoder_recipe,
    read_decoder,
    slide,
    sliding_layers,
    sliding_window,
)
from embed_export.json_object import JsonObject
from embed_export.rope import Rope


def read_gemma(config: JsonObject, *, rope: Rope | None = None) -> Decoder:
    """Read what all Gemmas have in common.

    Args:
        config: The whole config.json.
        rope: As in `read_decoder`.

    Raises:
        ExportError: Sizes are missing or contradict each other.
    """
    # Its default is not the hidden size over the number of heads.
    config.require("head_dim", int)
    decoder = read_decoder(config, activation="hidden_activation", rope=rope)
    attention_bias = config.find("attention_bias", bool, default=False)
    scalar = config.require("query_pre_attn_scalar", float)
    if scalar <= 0:
        raise config.wrong("query_pre_attn_scalar", "above 0")
    return replace(
        decoder,
        query_scale=scalar**-0.5,
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        sandwich_norms=True,
        unit_offset=True,
        embedding_scale=decoder.hidden_size**0.5,
    )


def read_gemma2(config: JsonObject) -> Decoder:
    """Read Gemma 2's config."""
    decoder = read_gemma(config)
    slides = sliding_layers(config, lambda index: index % 2 == 0)
    window = sliding_window(config, config.require("sliding_window", int))
    softcap = config.require("attn_logit_softcapping", float)
    if softcap <= 0:
        raise config.wrong("attn_logit_softcapping", "above 0")
    return slide(replace(decoder, softcap=softcap), slides, window)


RECIPE = decoder_recipe(
    read_gemma2,
    architectures=("Gemma2Model", "Gemma2ForCausalLM"),
    examples=("BAAI/bge-multilingual-gemma2",),
)
