"""What a config.json says about rotary position embedding, as frequencies.

The formulas are those of transformers (modeling_rope_utils.py, 5.23), in float32 step by step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from embed_export.errors import ExportError
from embed_export.json_object import JsonObject
from embed_export.rope import Rope
from embed_runtime.types import FloatArray

DEFAULT_THETA = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a way to stretch a rotation needs to know.

    Attributes:
        settings: `rope_parameters` or `rope_scaling` of config.json.
        rope: The rotation as it was trained.
        theta: The base its frequencies come from.
        periods: [head_size / 2] float32, the powers of theta; their reciprocals are frequencies.
        trained_tokens: Length of the texts it was trained with.
        max_tokens: Length of the texts it is stretched to.
    """

    settings: JsonObject
    rope: Rope
    theta: float
    periods: FloatArray
    trained_tokens: int
    max_tokens: int


def read_rope(config: JsonObject, head_size: int) -> Rope:
    """Read the one rotation that all layers of a model share.

    Raises:
        UnsupportedModelError: It is stretched in a way that cannot be exported.
        ExportError: Settings are missing or contradict each other.
    """
    settings = config.find_object("rope_parameters")
    older = config.find_object("rope_scaling")
    if settings and older:
        raise config.wrong("rope_scaling", "null where rope_parameters is given")
    theta = config.find("rope_theta", float, DEFAULT_THETA)
    return make_rope(config, settings or older, head_size, name="rope", theta=theta)


def make_rope(
    config: JsonObject, settings: JsonObject | None, head_size: int, *, name: str, theta: float
) -> Rope:
    """Make a rotation from settings of its own.

    Args:
        config: The whole config.json.
        settings: What it says about this rotation.
        head_size: Width of a head.
        name: Name of its tables in the graph.
        theta: The base where `settings` names none.

    Raises:
        UnsupportedModelError: It is stretched in a way that cannot be exported.
        ExportError: Settings are missing or contradict each other.
    """
    if config.find("partial_rotary_factor", float, 1.0) != 1:
        raise config.unsupported("partial_rotary_factor", "1.0")
    settings = settings or JsonObject({}, source=config.source)
    stretch = _find_stretch(settings)
    theta = settings.find("rope_theta", float, theta)
    if head_size % 2 or theta <= 1:
        raise ExportError(
            f"{config.source}: rotary embedding needs an even head size and a rope_theta above 1,"
            f" not {head_size} and {theta:g}"
        )
    max_tokens = config.require("max_position_embeddings", int)
    trained_tokens = config.find("original_max_position_embeddings", int) or settings.find(
        "original_max_position_embeddings", int, max_tokens
    )
    periods = _periods(theta, head_size)
    plan = _Plan(
        settings=settings,
        rope=Rope(name=name, frequencies=np.reciprocal(periods)),
        theta=theta,
        periods=periods,
        trained_tokens=trained_tokens,
        max_tokens=max_tokens,
    )
    return stretch(plan)


def _find_stretch(settings: JsonObject) -> "_Stretch":
    key = "type" if settings.find("rope_type", str) is None else "rope_type"
    kind = settings.find(key, str, "default")
    if kind not in _STRETCHES:
        raise settings.unsupported(key, ", ".join(_STRETCHES))
    stretch, keys = _STRETCHES[kind]
    for one in settings:
        if one not in {*keys, "type", "rope_type", "rope_theta"} and settings[one] is not None:
            raise settings.unsupported(one, f"null for rope type {kind!r}")
    return stretch


def _periods(theta: float, head_size: int) -> FloatArray:
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    # A float64 power, rounded, is what torch's float32 power gives; numpy's is off more often.
    periods: FloatArray = np.power(np.float64(theta), exponents).astype(np.float32)
    return periods


def _default(plan: _Plan) -> Rope:
    return plan.rope


def _linear(plan: _Plan) -> Rope:
    return replace(plan.rope, frequencies=plan.rope.frequencies / np.float32(_factor(plan)))


def _llama3(plan: _Plan) -> Rope:
    """Slow frequencies divided by the factor, fast ones kept, a ramp between."""
    settings, trained = plan.settings, plan.rope.frequencies
    factor = np.float32(_factor(plan))
    low = settings.require("low_freq_factor", float)
    high = settings.require("high_freq_factor", float)
    if not 0 < low < high:
        raise settings.wrong("high_freq_factor", f"more than low_freq_factor={low:g}")
    wavelengths = np.float32(2 * math.pi) / trained
    kept = (np.float32(plan.trained_tokens) / wavelengths - np.float32(low)) / np.float32(
        high - low
    )
    ramp = (1 - kept) * trained / factor + kept * trained
    frequencies = np.where(
        wavelengths < plan.trained_tokens / high,
        trained,
        np.where(wavelengths > plan.trained_tokens / low, trained / factor, ramp),
    )
    return replace(plan.rope, frequencies=frequencies.astype(np.float32))


def _yarn(plan: _Plan) -> Rope:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): a ramp over features, and longer rotations."""
    settings, trained = plan.settings, plan.rope.frequencies
    factor = _factor(plan)
    head_size = 2 * len(trained)

    def feature(num_rotations: float) -> float:
        """Tell which feature makes this many rotations in a text as long as the trained ones."""
        length = plan.trained_tokens / (num_rotations * 2 * math.pi)
        return head_size * math.log(length) / (2 * math.log(plan.theta))

    first = feature(settings.find("beta_fast", float) or 32.0)
    last = feature(settings.find("beta_slow", float) or 1.0)
    if settings.find("truncate", bool, default=True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_size - 1)
    # A ramp of no width would divide by zero; the width is transformers'.
    width = last - first or 0.001
    features = np.arange(len(trained), dtype=np.float32)
    kept = 1 - np.clip((features - np.float32(first)) / np.float32(width), 0, 1)
    stretched = np.reciprocal(np.float32(factor) * plan.periods)
    return replace(
        plan.rope,
        frequencies=(stretched * (1 - kept) + trained * kept).astype(np.float32),
        magnitude=_yarn_magnitude(settings, factor),
    )


def _yarn_magnitude(settings: JsonObject, factor: float) -> float:
    stated = settings.find("attention_factor", float)
    if stated is not None:
        return stated

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    above, below = settings.find("mscale", float), settings.find("mscale_all_dim", float)
    return scale(above) / scale(below) if above and below else scale(1)


def _longrope(plan: _Plan) -> Rope:
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753), up to the length it was trained with.

    Beyond it transformers divides by other factors as soon as one text of a batch is that long, so
    that a text's vector depends on its neighbours.
    """
    settings = plan.settings
    short = settings.find_list("short_factor", float)
    if short is None or len(short) != len(plan.periods):
        raise settings.wrong("short_factor", f"a list of {len(plan.periods)} numbers")
    factor = settings.find("factor", float) or plan.max_tokens / plan.trained_tokens
    magnitude = settings.find("attention_factor", float)
    if magnitude is None:
        magnitude = (
            math.sqrt(1 + math.log(factor) / math.log(plan.trained_tokens)) if factor > 1 else 1.0
        )
    return replace(
        plan.rope,
        frequencies=np.reciprocal(np.asarray(short, dtype=np.float32) * plan.periods),
        magnitude=magnitude,
        max_tokens=plan.trained_tokens,
    )


def _factor(plan: _Plan) -> float:
    factor = plan.settings.require("factor", float)
    if factor < 1:
        raise plan.settings.wrong("factor", "1 or more")
    return factor


_Stretch = Callable[[_Plan], Rope]
_TRAINED = "original_max_position_embeddings"
# `dynamic` is left out on purpose: its frequencies follow the longest text of a batch.
_STRETCHES: dict[str, tuple[_Stretch, frozenset[str]]] = {
    "default": (_default, frozenset()),
    "linear": (_linear, frozenset({"factor"})),
    "llama3": (_llama3, frozenset({"factor", "low_freq_factor", "high_freq_factor", _TRAINED})),
    "yarn": (
        _yarn,
        frozenset(
            {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}
            | {"truncate", _TRAINED}
        ),
    ),
    "longrope": (
        _longrope,
        frozenset({"factor", "attention_factor", "short_factor", "long_factor", _TRAINED}),
    ),
}
