"""Cost against size."""

from benchmarks.records.base import Record, Result
from embed_runtime.types import Precision


class ScalingStep(Record, frozen=True, kw_only=True):
    """One size of a call.

    Attributes:
        num_texts: Texts in the call.
        num_calls: How many calls were timed; few texts are asked for again and again.
        num_tokens: Real tokens of all these calls.
        seconds: Of all these calls.
        tokens_per_second: Real tokens over seconds.
        vectors_bytes: Size of what one call returns.
        peak_memory_bytes: Resident memory at its highest during the calls.
    """

    num_texts: int
    num_calls: int
    num_tokens: int
    seconds: float
    tokens_per_second: float
    vectors_bytes: int
    peak_memory_bytes: int


class ScalingResult(Result, frozen=True, kw_only=True, tag="scaling"):
    """Calls of growing size to one runtime."""

    model: str
    engine: str
    precision: Precision
    num_threads: int
    words_per_text: int
    steps: tuple[ScalingStep, ...]
