"""Results of earlier inputs, kept to answer the same ones again without the engine."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from embed_runtime.batching import Key, Row, to_key
from embed_runtime.jobs import Job, Target
from embed_runtime.stats import CacheStats
from embed_runtime.types import TOKEN_OUTPUTS, FloatArray, OutputName

# One input's vectors of tokens would push out those of hundreds of whole inputs.
_NOT_KEPT: OutputName = "token_embeddings"

# What an entry takes beside the bytes of its token ids and values: its places in the table, which
# is up to six times as large as it is full, and the tuple of its key. CPython 3.11 takes 150 to 300
# (tests/runtime/test_result_cache.py measures it); the rest is what malloc rounds up.
_ENTRY_BYTES = 320


def smallest_cache(dimensions: int) -> int:
    """Size up one result of an input of one token: bytes below which a cache holds nothing."""
    return _ENTRY_BYTES + sys.getsizeof(bytes(4)) + sys.getsizeof(bytes(4 * dimensions))


class ResultCache:
    """What the engine gave for single inputs, bit by bit; those not asked for longest go first.

    The key is all that an engine reads of an input, and what it was to compute: token ids, skipped
    tokens, adapter, output. Nothing else can change a result: a prompt is among the token ids,
    `dimensions` and `normalize` are applied to what is kept here, and there is but one engine, as
    every scheduler has a cache of its own. Vectors of tokens are not kept.

    Any number of threads may use it at once.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_bytes: Memory for all entries, keys and tables included.
        """
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # All below is guarded by the lock. What is kept is `bytes`, which nobody can write to.
        self._entries: OrderedDict[Key, bytes] = OrderedDict()
        self._num_bytes = 0
        self._num_hits = 0
        self._num_misses = 0

    def answer(self, job: Job) -> Sequence[int]:
        """Give a job what is known of its inputs.

        Args:
            job: One that nobody else gives anything yet.

        Returns:
            Indexes of its other inputs, which the engine must compute.

        Raises:
            EngineError: There is no memory for the vectors.
        """
        if job.output == _NOT_KEPT or not job.use_cache:
            return range(job.num_inputs)
        keys = [to_key(item, job.output) for item in job.inputs]
        with self._lock:
            found = [self._find(key) for key in keys]
            num_misses = found.count(None)
            self._num_misses += num_misses
            self._num_hits += len(found) - num_misses
        missing: list[int] = []
        for index, (item, content) in enumerate(zip(job.inputs, found, strict=True)):
            if content is None:
                missing.append(index)
                continue
            num_rows = item.num_tokens if job.output in TOKEN_OUTPUTS else 1
            values = np.frombuffer(content, np.float32).reshape(num_rows, -1)
            job.receive(index, values, item.input_ids)
        return missing

    def add(self, row: Row[Target], values: FloatArray) -> None:
        """Keep a copy of a result, unless there is one already, or no room for it.

        Args:
            row: The row it is the result of.
            values: What the engine gave, finite.
        """
        if row.output == _NOT_KEPT or not any(job.use_cache for job, _ in row.targets):
            return
        key = row.key
        with self._lock:
            if key in self._entries:  # computed twice at once; the first one stays
                return
            try:
                content = values.tobytes()
            except MemoryError:  # then the limit is more than there is; callers have their answer
                return
            num_bytes = _count_bytes(key, content)
            if num_bytes > self._max_bytes:
                return
            self._entries[key] = content
            self._num_bytes += num_bytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= _count_bytes(*self._entries.popitem(last=False))

    def clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0

    def stats(self) -> CacheStats:
        """Take a snapshot."""
        with self._lock:
            return CacheStats(
                hits=self._num_hits,
                misses=self._num_misses,
                entries=len(self._entries),
                num_bytes=self._num_bytes,
            )

    def _find(self, key: Key) -> bytes | None:
        content = self._entries.get(key)
        if content is not None:
            self._entries.move_to_end(key)
        return content


def _count_bytes(key: Key, content: bytes) -> int:
    return _ENTRY_BYTES + sys.getsizeof(key[0]) + sys.getsizeof(content)
