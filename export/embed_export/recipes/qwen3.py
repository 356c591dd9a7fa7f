"""Qwen3: Llama with normalized queries and keys, in heads of a width of their own."""

from dataclasses import replace

from embed_export.decoder import Decoder
from embed_export.decoder_config import decoder_recipe, read_decoder
from embed_export.json_object import JsonObject
from embed_export.recipes.qwen2 import slide_qwen


def read_qwen3(config: JsonObject) -> Decoder:
    """Read Qwen3's config."""
    # Its default is not the hidden size over the number of heads.
    config.require("head_dim", int)
    attention_bias = config.find("attention_bias", bool, default=False)
    return replace(
        slide_qwen(config, read_decoder(config)),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        qk_norm=True,
    )


RECIPE = replace(
    decoder_recipe(
        read_qwen3,
        architectures=("Qwen3Model", "Qwen3ForCausalLM"),
        examples=("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-8B"),
    ),
    matryoshka={f"Qwen3-Embedding-{size}": 32 for size in ("0.6B", "4B", "8B")},
)
