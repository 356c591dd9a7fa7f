"""How many batches an engine should compute at once: measured, since it depends on the machine."""

from collections.abc import Callable, Sequence

from embed_export.measure import tokens_per_second
from embed_runtime import Runtime

# What more streams must gain to be worth another copy of the weights, and to be no accident.
_LEAST_GAIN = 1.03


def choose_streams(
    choices: Sequence[int], open_runtime: Callable[[int], Runtime], texts: Sequence[str]
) -> int:
    """Find the number of streams with which an engine is fastest, fewer ones where it is close.

    Args:
        choices: Numbers to compare, at least one; a single one is not measured.
        open_runtime: Opens the engine with so many streams.
        texts: What to embed, where there is no documentation text on this machine.

    Raises:
        EngineError: The engine failed.
    """
    best, *others = sorted(choices)
    if not others:
        return best
    best_rate = _rate(best, open_runtime, texts)
    for num_streams in others:
        rate = _rate(num_streams, open_runtime, texts)
        if rate > _LEAST_GAIN * best_rate:
            best, best_rate = num_streams, rate
    return best


def _rate(num_streams: int, open_runtime: Callable[[int], Runtime], texts: Sequence[str]) -> float:
    with open_runtime(num_streams) as runtime:
        return tokens_per_second(runtime, texts)
