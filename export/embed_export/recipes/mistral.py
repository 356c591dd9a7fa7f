"""Mistral: Llama, with a sliding window in every layer where the config has one."""

from embed_export.decoder import Decoder
from embed_export.decoder_config import decoder_recipe, read_decoder, slide, sliding_window
from embed_export.json_object import JsonObject
from embed_export.recipes import refuse

# What transformers assumes where the key is absent (configuration_mistral.py, 5.23); null is none.
DEFAULT_WINDOW = 4096


def read_mistral(config: JsonObject) -> Decoder:
    """Read Mistral's config."""
    # The library's Mistral ignores them, so a model that has them was not made with it.
    refuse(config, "layer_types")
    decoder = read_decoder(config)
    num_tokens = config.find("sliding_window", int)
    if num_tokens is None and "sliding_window" not in config:
        num_tokens = DEFAULT_WINDOW
    if num_tokens is None:
        return decoder
    if num_tokens < 1:
        raise config.wrong("sliding_window", "1 or more, or null")
    return slide(decoder, [True] * len(decoder.layers), sliding_window(config, num_tokens))


RECIPE = decoder_recipe(
    read_mistral,
    architectures=("MistralModel", "MistralForCausalLM"),
    examples=("intfloat/e5-mistral-7b-instruct", "Salesforce/SFR-Embedding-Mistral"),
)
