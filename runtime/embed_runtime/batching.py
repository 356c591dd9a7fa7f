"""Which inputs share a batch. No clock, no thread, no engine: a policy, and what it needs."""

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar, get_args

import numpy as np

from embed_runtime.types import Batch, OutputName, TokenizedInput

# Where requests of both kinds wait, this many batches of small requests go before one of large.
SMALL_BATCHES_IN_A_ROW = 3

_MAX_VECTOR_BYTES = 1 << 26

_OUTPUT_NAMES: tuple[OutputName, ...] = get_args(OutputName)

T = TypeVar("T")

# Equal for inputs that have the same result: token ids, skipped tokens, adapter, output.
Key: TypeAlias = tuple[bytes, int, int, OutputName]


def to_key(item: TokenizedInput, output: OutputName) -> Key:
    """Make the key of an input, of all that an engine reads of it."""
    return item.input_ids.tobytes(), item.num_skipped, item.adapter, output


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a batch may hold.

    Engines pack: rows cost their own tokens, except in attention, where every row costs the
    square of the longest. Padding is what that adds: rows x longest^2 less the sum of all
    lengths^2.

    Attributes:
        max_tokens: Tokens of all rows. A longer row gets a batch of its own.
        max_padding: Padding in attention, in squared tokens.
        max_rows: Rows.
    """

    max_tokens: int
    max_padding: int
    max_rows: int = 1 << 31

    @classmethod
    def for_model(cls, *, max_tokens: int, hidden_size: int, dimensions: int) -> "Limits":
        """Let padding in attention cost a sixteenth of the matrix products of a full batch.

        Per layer, with H the hidden size, a token costs 24 H^2 operations in matrix products (of a
        transformer whose feed-forward size is 4 H), and a squared token 4 H in attention.

        Vectors of one batch take `_MAX_VECTOR_BYTES` at most, which only those that weigh a whole
        vocabulary come near.
        """
        return cls(
            max_tokens=max_tokens,
            max_padding=max_tokens * hidden_size * 6 // 16,
            max_rows=max(_MAX_VECTOR_BYTES // (4 * dimensions), 1),
        )


class Row(Generic[T]):
    """One input in a batch, and all who wait for its result.

    Attributes:
        item: The input.
        output: What to compute for it.
        targets: Who gets the result; several where identical inputs met.
        num_wanted: Targets that still want it.
        key: Equal for rows that have the same result.
        is_small: Which lane it waits in.
        is_waiting: Whether it waits; False once it was taken or dropped.
    """

    __slots__ = ("is_small", "is_waiting", "item", "key", "num_wanted", "output", "targets")

    def __init__(self, item: TokenizedInput, output: OutputName, targets: list[T]) -> None:
        self.item = item
        self.output: OutputName = output
        self.targets = targets
        self.num_wanted = len(targets)
        self.key = to_key(item, output)
        self.is_small = True
        self.is_waiting = False


class _Lane(Generic[T]):
    """Rows by arrival and by length; adding or removing one costs the same at any size."""

    def __init__(self) -> None:
        self.rows: OrderedDict[Row[T], None] = OrderedDict()
        self.by_length: dict[int, OrderedDict[Row[T], None]] = {}
        self.lengths: list[int] = []

    def add(self, row: Row[T]) -> None:
        """Put a row last."""
        self.rows[row] = None
        length = row.item.num_tokens
        bucket = self.by_length.get(length)
        if bucket is None:
            bucket = self.by_length[length] = OrderedDict()
            insort(self.lengths, length)
        bucket[row] = None

    def remove(self, row: Row[T]) -> None:
        """Take a row out, wherever it stands."""
        del self.rows[row]
        length = row.item.num_tokens
        bucket = self.by_length[length]
        del bucket[row]
        if not bucket:
            del self.by_length[length]
            del self.lengths[bisect_left(self.lengths, length)]


class Waiting(Generic[T]):
    """The inputs that wait for the engine, in two lanes: small requests, and all others.

    Identical inputs wait as one row. A batch comes from one lane, always has that lane's oldest
    row, and is filled up with the rows nearest to it in length. Not for several threads at once.

    Attributes:
        num_inputs: Inputs waiting, each one of several identical ones counted.
        num_tokens: Their tokens.
    """

    def __init__(self) -> None:
        self.num_inputs = 0
        self.num_tokens = 0
        self._small: _Lane[T] = _Lane()
        self._large: _Lane[T] = _Lane()
        self._by_key: dict[Key, Row[T]] = {}
        self._num_small_batches = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, item: TokenizedInput, output: OutputName, target: T, *, is_small: bool) -> Row[T]:
        """Let an input wait, with the row of an identical one if there is one.

        Returns:
            The row, to `drop` when the target wants no result any more.
        """
        self.num_inputs += 1
        self.num_tokens += item.num_tokens
        row = Row(item, output, [target])
        known = self._by_key.setdefault(row.key, row)
        if known is row:
            row.is_small, row.is_waiting = is_small, True
            self._lane(row).add(row)
            return row
        known.targets.append(target)
        known.num_wanted += 1
        if is_small and not known.is_small:
            self._large.remove(known)
            known.is_small = True
            self._small.add(known)
        return known

    def drop(self, row: Row[T]) -> None:
        """Take note that one target of a row wants no result any more."""
        row.num_wanted -= 1
        if row.is_waiting:
            self.num_inputs -= 1
            self.num_tokens -= row.item.num_tokens
            if not row.num_wanted:
                self._remove(row)

    @property
    def has_small(self) -> bool:
        """Whether small requests wait."""
        return bool(self._small.rows)

    def take(self, limits: Limits, *, small_only: bool = False) -> list[Row[T]]:
        """Take the rows of the next batch out; none if nothing waits."""
        lane = self._small if small_only else self._next_lane()
        if not lane.rows:
            return []
        rows = _choose(lane, limits)
        for row in rows:
            self.num_inputs -= row.num_wanted
            self.num_tokens -= row.num_wanted * row.item.num_tokens
            self._remove(row)
        return rows

    def _lane(self, row: Row[T]) -> _Lane[T]:
        return self._small if row.is_small else self._large

    def _remove(self, row: Row[T]) -> None:
        row.is_waiting = False
        del self._by_key[row.key]
        self._lane(row).remove(row)

    def _next_lane(self) -> _Lane[T]:
        """Say whose turn it is: small requests first, but large ones get their share."""
        if not self._large.rows:
            self._num_small_batches = 0
            return self._small
        if self._small.rows and self._num_small_batches < SMALL_BATCHES_IN_A_ROW:
            self._num_small_batches += 1
            return self._small
        self._num_small_batches = 0
        return self._large


class _Draft(Generic[T]):
    """A batch in the making."""

    def __init__(self, first: Row[T], limits: Limits) -> None:
        self.rows = [first]
        self._limits = limits
        self._longest = first.item.num_tokens
        self._num_tokens = self._longest
        self._squares = self._longest**2

    @property
    def is_full(self) -> bool:
        """Whether it has as many rows as it may."""
        return len(self.rows) >= self._limits.max_rows

    @property
    def num_tokens_left(self) -> int:
        """Tokens that still fit; negative where the first row is beyond the limit itself."""
        return self._limits.max_tokens - self._num_tokens

    def pads_too_much(self, length: int) -> bool:
        """Tell whether a row of this length would make attention pad too much."""
        attention = (len(self.rows) + 1) * max(self._longest, length) ** 2
        return attention - self._squares - length**2 > self._limits.max_padding

    def add(self, row: Row[T]) -> None:
        """Put a row in."""
        length = row.item.num_tokens
        self.rows.append(row)
        self._longest = max(self._longest, length)
        self._num_tokens += length
        self._squares += length**2


def _choose(lane: _Lane[T], limits: Limits) -> list[Row[T]]:
    """Pick the oldest row of a lane, then those nearest to it in length, shorter ones first."""
    oldest = next(iter(lane.rows))
    draft = _Draft(oldest, limits)
    lengths, middle = lane.lengths, oldest.item.num_tokens
    above = bisect_right(lengths, middle)
    below = above - 1
    while below >= 0 or above < len(lengths):
        shorter = below >= 0 and (
            above == len(lengths) or middle - lengths[below] <= lengths[above] - middle
        )
        length = lengths[below if shorter else above]
        for row in lane.by_length[length]:
            if row is oldest:
                continue
            if draft.is_full:
                return draft.rows
            if length > draft.num_tokens_left or draft.pads_too_much(length):
                break
            draft.add(row)
        else:
            below, above = (below - 1, above) if shorter else (below, above + 1)
            continue
        # Farther on the same side none fits either, but for shorter rows where only tokens lack.
        if not shorter:
            above = len(lengths)
        elif length <= draft.num_tokens_left:
            below = -1
        else:
            below = min(below, bisect_right(lengths, draft.num_tokens_left)) - 1
    return draft.rows


def collate(rows: Sequence[Row[T]]) -> Batch:
    """Lay rows one after another."""
    items = [row.item for row in rows]
    cu_seqlens = np.zeros(len(items) + 1, np.int32)
    np.cumsum([item.num_tokens for item in items], dtype=np.int32, out=cu_seqlens[1:])
    outputs = {row.output for row in rows}
    return Batch(
        input_ids=np.concatenate([item.input_ids for item in items]),
        cu_seqlens=cu_seqlens,
        num_skipped=np.array([item.num_skipped for item in items], np.int32),
        adapters=np.array([item.adapter for item in items], np.int32),
        outputs=tuple(name for name in _OUTPUT_NAMES if name in outputs),
    )
