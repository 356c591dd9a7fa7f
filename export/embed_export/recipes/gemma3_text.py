"""Gemma 3: Gemma 2 with normalized queries and keys and no soft cap; EmbeddingGemma is one.

Layers that slide have a rotation of their own. EmbeddingGemma looks both ways.
"""

from dataclasses import replace

from embed_export.decoder import Decoder, Layer
from embed_export.decoder_config import decoder_recipe, is_causal, read_heads, sliding_layers
from embed_export.json_object import JsonObject
from embed_export.masks import CAUSAL, EVERYTHING, Window
from embed_export.recipes import refuse
from embed_export.recipes.gemma2 import read_gemma
from embed_export.rope import Rope
from embed_export.rope_config import make_rope
from embed_runtime.manifest import PoolingMode

# What transformers assumes where the config has no base (configuration_gemma3.py, 5.23).
FULL_THETA, SLIDING_THETA = 1_000_000.0, 10_000.0
# Every so manieth layer sees everything, where the config does not say.
SLIDING_PATTERN = 6


def read_gemma3(config: JsonObject) -> Decoder:
    """Read Gemma 3's config, with rotations as old or as new releases write them."""
    refuse(config, "attn_logit_softcapping")
    pattern = config.find("sliding_window_pattern", int, SLIDING_PATTERN)
    slides = sliding_layers(config, lambda index: (index + 1) % pattern != 0)
    full, sliding = _read_ropes(config, read_heads(config).head_size)
    everything = CAUSAL if is_causal(config) else EVERYTHING
    window = _read_window(config)
    layers = [
        Layer(window=window, rope=sliding) if one else Layer(window=everything, rope=full)
        for one in slides
    ]
    return replace(read_gemma(config, rope=full), layers=tuple(layers), qk_norm=True)


def find_pooling(config: JsonObject) -> PoolingMode:
    """Take the mean where tokens look both ways, else the last token, which has seen the others."""
    return "lasttoken" if is_causal(config) else "mean"


def _read_window(config: JsonObject) -> Window:
    num_tokens = config.require("sliding_window", int)
    if is_causal(config):
        return Window(left=num_tokens - 1, right=0)
    if num_tokens % 2:
        # Some releases wrote the number they had made of it, w / 2 + 1, and would halve it again.
        raise config.wrong(
            "sliding_window",
            "even where tokens look both ways; if a release of transformers halved it, give the"
            f" model's own: --hf-overrides '{{\"sliding_window\": {2 * (num_tokens - 1)}}}'",
        )
    return Window(left=num_tokens // 2, right=num_tokens // 2)


def _read_ropes(config: JsonObject, head_size: int) -> tuple[Rope, Rope]:
    settings = config.find_object("rope_parameters")
    older = config.find_object("rope_scaling")
    if settings and older:
        raise config.wrong("rope_scaling", "null where rope_parameters is given")
    full = settings.find_object("full_attention") if settings else older
    sliding = settings.find_object("sliding_attention") if settings else None
    return (
        make_rope(
            config,
            full,
            head_size,
            name="rope.full",
            theta=config.find("rope_theta", float, FULL_THETA),
        ),
        make_rope(
            config,
            sliding,
            head_size,
            name="rope.sliding",
            theta=config.find("rope_local_base_freq", float, SLIDING_THETA),
        ),
    )


def _native_config(config: JsonObject) -> dict[str, object]:
    """Say which way tokens look as this class reads it: only so does it halve the window."""
    kept = {key: value for key, value in config.items() if key not in {"auto_map", "is_causal"}}
    return {**kept, "use_bidirectional_attention": not is_causal(config)}


RECIPE = replace(
    decoder_recipe(
        read_gemma3,
        architectures=("Gemma3TextModel", "Gemma3ForCausalLM"),
        examples=("google/embeddinggemma-300m",),
        attention="what is before it; both ways where use_bidirectional_attention is true",
    ),
    find_pooling=find_pooling,
    matryoshka={"embeddinggemma-300m": (128, 256, 512)},
    # Activations of the family reach 8e5, and fp16 ends at 65,504.
    precisions=("fp32", "bf16", "int8"),
    native_config=_native_config,
)
