"""What the scheduler counts."""

import math
from dataclasses import dataclass

from embed_runtime.types import Batch

# How much of the pace before the latest batch still counts.
_MEMORY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What the result cache holds now, and has answered since it started.

    Attributes:
        hits: Inputs it answered.
        misses: Inputs that were looked for in vain.
        entries: Results it holds.
        num_bytes: Memory they take, with their keys.
    """

    hits: int = 0
    misses: int = 0
    entries: int = 0
    num_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class SchedulerStats:
    """What the scheduler does now, and has done since it started.

    Attributes:
        waiting_inputs: Inputs in the queue.
        waiting_tokens: Their tokens.
        running_inputs: Inputs in the engine, in the one batch prepared for it, or in batches that
            are being delivered.
        batches: Batches the engine finished, failed ones left out.
        rows: Rows of those batches.
        tokens: Real tokens of those rows.
        attention_slots: Rows times the longest row, summed over batches; what attention pads to.
        deduplicated: Inputs answered by the row of an identical input.
        engine_seconds: Time inside the engine, of all its streams together.
        failed_batches: Batches the engine failed on.
        failures_in_a_row: Batches that failed since the last that did not.
        cache: The result cache; all zero where there is none.
    """

    waiting_inputs: int = 0
    waiting_tokens: int = 0
    running_inputs: int = 0
    batches: int = 0
    rows: int = 0
    tokens: int = 0
    attention_slots: int = 0
    deduplicated: int = 0
    engine_seconds: float = 0.0
    failed_batches: int = 0
    failures_in_a_row: int = 0
    cache: CacheStats = CacheStats()

    def add(self, batch: Batch, *, num_inputs: int, seconds: float) -> None:
        """Count a batch that answered so many inputs."""
        self.batches += 1
        self.rows += batch.num_rows
        self.tokens += batch.num_tokens
        self.attention_slots += batch.num_rows * int(batch.lengths.max())
        self.deduplicated += num_inputs - batch.num_rows
        self.engine_seconds += seconds
        self.failures_in_a_row = 0

    def add_failure(self) -> None:
        """Count a batch that the engine failed on."""
        self.failed_batches += 1
        self.failures_in_a_row += 1

    @property
    def padding_share(self) -> float:
        """Share of attention slots that held no token, 0 to 1."""
        return 1 - self.tokens / self.attention_slots if self.attention_slots else 0.0


class Pace:
    """How many tokens a second the engine does; recent batches count most."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, num_tokens: int, seconds: float) -> None:
        """Take one batch into account."""
        self._tokens = _MEMORY * self._tokens + num_tokens
        self._seconds = _MEMORY * self._seconds + seconds

    def seconds_for(self, num_tokens: int) -> int:
        """Estimate the time for some tokens, in whole seconds from 1 to 600."""
        if not self._tokens:
            return 1
        return min(max(1, math.ceil(num_tokens * self._seconds / self._tokens)), 600)
