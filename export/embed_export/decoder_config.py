"""What decoders' config.json files have in common, read into a `Decoder` and a `Recipe`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from embed_export.decoder import Decoder, Layer, write_decoder
from embed_export.errors import ExportError
from embed_export.json_object import JsonObject
from embed_export.layers import Heads
from embed_export.masks import CAUSAL, EVERYTHING, Window
from embed_export.recipes import Recipe, Shape, even_heads, read_activation
from embed_export.rope import Rope
from embed_export.rope_config import read_rope
from embed_runtime.manifest import Positions

_LAYER_TYPES = {"full_attention": False, "sliding_attention": True}


def as_published(config: JsonObject) -> JsonObject:
    """Return a config that says all there is to say."""
    return config


def both_ways(config: JsonObject) -> JsonObject:
    """Say what a config leaves to its architecture's name: that tokens see those behind them."""
    return JsonObject({**config, "is_causal": False}, source=config.source)


def decoder_recipe(
    read: Callable[[JsonObject], Decoder],
    *,
    architectures: tuple[str, ...],
    examples: tuple[str, ...],
    attention: str = "what is before it; both ways where is_causal is false",
    complete: Callable[[JsonObject], JsonObject] = as_published,
) -> Recipe:
    """Make the recipe of a family.

    Args:
        read: Reads its config.
        architectures: As in `Recipe`.
        examples: As in `Recipe`.
        attention: As in `Recipe`.
        complete: Says in a config, ahead of `read` and of transformers, what it leaves unsaid.
    """

    def shape(config: JsonObject) -> Shape:
        decoder = read(complete(config))
        return Shape(
            hidden_size=decoder.hidden_size,
            num_layers=len(decoder.layers),
            vocab_size=decoder.vocab_size,
            max_tokens=decoder.max_tokens,
            positions=Positions(),
        )

    return Recipe(
        architectures=architectures,
        examples=examples,
        attention=attention,
        shape=shape,
        backbone=lambda graph, config, weights: write_decoder(
            graph, read(complete(config)), weights
        ),
        pooling="lasttoken",
        prefixes=("model.",),
        # The frequencies are a buffer that older releases of transformers saved along.
        unused=(r"lm_head\..*", r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
        native_config=lambda config: _native_config(complete(config)),
    )


def read_decoder(
    config: JsonObject, *, activation: str = "hidden_act", rope: Rope | None = None
) -> Decoder:
    """Read what every family has, as Llama has it, with all layers alike.

    Args:
        config: The whole config.json.
        activation: Its key for the feed-forward's activation.
        rope: The layers' rotation; None reads the one that config.json describes.

    Raises:
        UnsupportedModelError: It asks for something no decoder computes.
        ExportError: Sizes are missing or contradict each other.
    """
    heads = read_heads(config)
    rope = rope or read_rope(config, heads.head_size)
    layer = Layer(window=CAUSAL if is_causal(config) else EVERYTHING, rope=rope)
    max_tokens = config.require("max_position_embeddings", int)
    return Decoder(
        hidden_size=config.require("hidden_size", int),
        inner_size=config.require("intermediate_size", int),
        vocab_size=config.require("vocab_size", int),
        max_tokens=min(max_tokens, rope.max_tokens or max_tokens),
        heads=heads,
        layers=(layer,) * config.require("num_hidden_layers", int),
        activation=read_activation(config, activation),
        epsilon=config.find("rms_norm_eps", float, 1e-6),
        query_scale=heads.head_size**-0.5,
    )


def is_causal(config: JsonObject) -> bool:
    """Tell whether tokens see only those before them.

    transformers reads `is_causal` in every decoder and `use_bidirectional_attention` in few; here
    both count.

    Raises:
        UnsupportedModelError: Only the repository's own code knows.
        ExportError: The two contradict each other.
    """
    stated = config.find("is_causal", bool)
    both_ways = config.find("use_bidirectional_attention", bool)
    if stated and both_ways:
        raise config.wrong("is_causal", "false where use_bidirectional_attention is true")
    if stated is not None:
        return stated
    code = config.find_object("auto_map")
    if both_ways is None and code is not None and code.find("AutoModel", str) is not None:
        raise code.unsupported(
            "AutoModel",
            "the library's own model; if the repository's differs only in its attention, say which"
            """ that is: --hf-overrides '{"is_causal": true}', or false where it looks both ways""",
        )
    return not both_ways


def sliding_window(config: JsonObject, num_tokens: int) -> Window:
    """Return the window of a layer whose attention slides, as transformers counts it.

    It counts a token itself among the `num_tokens` that a causal layer sees, and not among those
    to either side.
    """
    if is_causal(config):
        return Window(left=num_tokens - 1, right=0)
    return Window(left=num_tokens, right=num_tokens)


def slide(decoder: Decoder, which: Sequence[bool], window: Window) -> Decoder:
    """Give some layers of a decoder another window."""
    layers = [
        replace(layer, window=window) if slides else layer
        for layer, slides in zip(decoder.layers, which, strict=True)
    ]
    return replace(decoder, layers=tuple(layers))


def sliding_layers(config: JsonObject, default: Callable[[int], bool]) -> tuple[bool, ...]:
    """Tell which layers slide: those `layer_types` names, else those `default` picks by index.

    Raises:
        ExportError: `layer_types` has another length, or a word no decoder knows.
    """
    num_layers = config.require("num_hidden_layers", int)
    words = config.find_list("layer_types", str)
    if words is None:
        return tuple(default(index) for index in range(num_layers))
    if len(words) != num_layers or not set(words) <= _LAYER_TYPES.keys():
        raise config.wrong("layer_types", f"{num_layers} times one of {', '.join(_LAYER_TYPES)}")
    return tuple(_LAYER_TYPES[word] for word in words)


def read_heads(config: JsonObject) -> Heads:
    """Read how queries, keys and values are split.

    Raises:
        ExportError: The numbers do not divide.
    """
    num_heads = config.require("num_attention_heads", int)
    num_kv_heads = config.find("num_key_value_heads", int, num_heads)
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ExportError(
            f"{config.source}: num_attention_heads={num_heads} is no multiple of"
            f" num_key_value_heads={num_kv_heads}"
        )
    size = config.find("head_dim", int)
    if size is None:
        size = even_heads(config).head_size
    return Heads(num_heads=num_heads, head_size=size, num_kv_heads=num_kv_heads)


def _native_config(config: JsonObject) -> dict[str, object]:
    """Return the config with which transformers' own class computes what we do."""
    dropped = {"auto_map", "use_bidirectional_attention"}
    kept = {key: value for key, value in config.items() if key not in dropped}
    return {**kept, "is_causal": is_causal(config)}
