"""How many batches an engine should compute at once: measured, since it depends on the machine."""

import statistics
from collections.abc import Callable, Sequence

from embed_export.measure import texts_for_a_pass, time_pass
from embed_runtime import Runtime

# What more streams must gain to be worth another copy of the weights, and to be no accident: other
# work on a machine slows single passes by as much, which is why several take turns.
_LEAST_GAIN = 1.03
_ROUNDS = 5


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
    for num_streams in others:
        with open_runtime(best) as one, open_runtime(num_streams) as other:
            if _gain(one, other, texts) >= _LEAST_GAIN:
                best = num_streams
    return best


def _gain(one: Runtime, other: Runtime, texts: Sequence[str]) -> float:
    """Say how many times as fast the other one is; they take turns."""
    texts = texts_for_a_pass(one, texts)
    time_pass(other, texts)
    ratios = [time_pass(one, texts) / time_pass(other, texts) for _ in range(_ROUNDS)]
    return statistics.median(ratios)
