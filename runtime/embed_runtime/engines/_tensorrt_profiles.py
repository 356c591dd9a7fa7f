"""Which shapes a TensorRT engine is tuned for, which of them a batch gets, and when to split it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embed_runtime.errors import EngineError
from embed_runtime.types import Batch

# Tokens that keep a GPU busy even with a small model.
BATCH_TOKENS = 16384
# Room for the padding around attention: sorted rows fill more than half of their slots.
SLOTS_PER_TOKEN = 2
# Longest row of each profile; one more takes the model's longest.
ROW_LENGTHS = (64, 256)
# The latency profile: a few rows, together no longer than the longest; tuned for one short row.
LATENCY_ROWS = 4
LATENCY_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """T, B and S of a batch: all its tokens, its rows, its longest row."""

    num_tokens: int
    num_rows: int
    longest: int

    @classmethod
    def of(cls, batch: Batch) -> "Shape":
        """Measure a batch."""
        return _shape(batch.num_tokens, batch.num_rows, int(batch.lengths.max()))

    @property
    def num_slots(self) -> int:
        """B * S."""
        return self.num_rows * self.longest

    def dimensions(self, rank: int) -> tuple[int, ...]:
        """Spell it for an input of the packed dialect: [T] or [B, S]."""
        return (self.num_tokens,) if rank == 1 else (self.num_rows, self.longest)

    def fits(self, limit: "Shape") -> bool:
        """Tell whether no axis passes the limit."""
        return (
            self.num_tokens <= limit.num_tokens
            and self.num_rows <= limit.num_rows
            and self.longest <= limit.longest
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The shapes an optimization profile takes, and the one it is tuned for."""

    min: Shape
    opt: Shape
    max: Shape


def max_batch_tokens(max_tokens: int) -> int:
    """Return the token budget of an engine for rows of up to `max_tokens`."""
    return max(BATCH_TOKENS, max_tokens)


def plan_profiles(max_tokens: int) -> list[Profile]:
    """Lay out the profiles for a model: one for latency, then one for each range of lengths."""
    budget = max_batch_tokens(max_tokens)
    smallest = _shape(1, 1, 1)
    short = min(LATENCY_TOKENS, max_tokens)
    profiles = [
        Profile(
            min=smallest,
            opt=_shape(short, 1, short),
            max=_shape(max_tokens, LATENCY_ROWS, max_tokens),
        )
    ]
    for longest in sorted({min(length, max_tokens) for length in (*ROW_LENGTHS, max_tokens)}):
        # Most time is spent on large batches; their rows are about half as long as they may be.
        typical = max(1, longest // 2)
        num_rows = max(1, budget // 2 // typical)
        max_rows = max(num_rows, SLOTS_PER_TOKEN * budget // longest)
        profiles.append(
            Profile(
                min=smallest,
                opt=_shape(num_rows * typical, num_rows, typical),
                max=_shape(budget, max_rows, longest),
            )
        )
    return profiles


def choose_profile(shape: Shape, limits: Sequence[Shape]) -> int | None:
    """Return the index of the first profile that takes the shape, or None."""
    return next((index for index, limit in enumerate(limits) if shape.fits(limit)), None)


def split(batch: Batch, limits: Sequence[Shape]) -> Iterator[tuple[int, Batch]]:
    """Halve a batch until every part has a profile.

    Yields:
        The profile's index and the part, in row order.

    Raises:
        EngineError: A single row is larger than every profile.
    """
    profile = choose_profile(Shape.of(batch), limits)
    if profile is not None:
        yield profile, batch
    elif batch.num_rows == 1:
        raise EngineError(f"a row of {batch.num_tokens} tokens fits no optimization profile")
    else:
        middle = batch.num_rows // 2
        yield from split(_rows(batch, 0, middle), limits)
        yield from split(_rows(batch, middle, batch.num_rows), limits)


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    first, last = batch.cu_seqlens[start], batch.cu_seqlens[stop]
    return Batch(
        input_ids=batch.input_ids[first:last],
        cu_seqlens=batch.cu_seqlens[start : stop + 1] - first,
        num_skipped=batch.num_skipped[start:stop],
        adapters=batch.adapters[start:stop],
        outputs=batch.outputs,
    )


def _shape(num_tokens: int, num_rows: int, longest: int) -> Shape:
    return Shape(num_tokens=num_tokens, num_rows=num_rows, longest=longest)
