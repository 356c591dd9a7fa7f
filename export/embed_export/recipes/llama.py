"""Llama: causal, one rotation, no biases unless the config asks for them."""

from dataclasses import replace

from embed_export.decoder import Decoder
from embed_export.decoder_config import decoder_recipe, read_decoder
from embed_export.json_object import JsonObject


def read_llama(config: JsonObject) -> Decoder:
    """Read Llama's config."""
    attention_bias = config.find("attention_bias", bool, default=False)
    return replace(
        read_decoder(config),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=config.find("mlp_bias", bool, default=False),
    )


RECIPE = decoder_recipe(
    read_llama,
    architectures=("LlamaModel", "LlamaForCausalLM"),
    examples=("meta-llama/Llama-3.2-1B",),
)
