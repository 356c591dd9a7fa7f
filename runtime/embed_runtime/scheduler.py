"""The queue between callers and the engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStats:
    """What the scheduler does now, and has done since it started.

    Attributes:
        waiting_inputs: Inputs in the queue.
        waiting_tokens: Their tokens.
        running_inputs: Inputs in the engine, or prepared for it.
        batches: Batches the engine finished.
        rows: Rows of those batches.
        tokens: Real tokens of those rows.
        attention_slots: Rows times the longest row, summed over batches; what attention pads to.
        deduplicated: Inputs answered by the row of an identical input.
        engine_seconds: Time inside the engine.
    """

    waiting_inputs: int
    waiting_tokens: int
    running_inputs: int
    batches: int
    rows: int
    tokens: int
    attention_slots: int
    deduplicated: int
    engine_seconds: float

    @property
    def padding_share(self) -> float:
        """Share of attention slots that held no token, 0 to 1."""
        return 1 - self.tokens / self.attention_slots if self.attention_slots else 0.0
