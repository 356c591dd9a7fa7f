"""Texts longer than the model, read in pieces; and texts read together, pooled apart."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embed_runtime import vectors
from embed_runtime.errors import InputError
from embed_runtime.gathering import Gathering, make_gathering
from embed_runtime.plan import Plan
from embed_runtime.types import EmbedResult, FloatArray, IntArray, TokenizedInput

# How far from 1 the length of a vector may be that counts as a unit vector (8-bit engines).
_UNIT_TOLERANCE = 1e-2


def split(
    inputs: Sequence[TokenizedInput], max_tokens: int
) -> tuple[list[TokenizedInput], IntArray]:
    """Cut inputs into runs of at most `max_tokens`, one after another.

    The special tokens and the prompt are where they were: at the very ends.

    Returns:
        The pieces, and [pieces] int32, which input each is of.

    Raises:
        InputError: A prompt that pooling leaves out fills a whole piece.
    """
    pieces: list[TokenizedInput] = []
    owners: list[int] = []
    for index, item in enumerate(inputs):
        if item.num_skipped >= max_tokens:
            raise InputError(
                f"the prompt has {item.num_skipped} tokens, and the model reads {max_tokens} at a"
                " time; shorten it",
                param="prompt",
            )
        for start in range(0, item.num_tokens, max_tokens):
            ids = item.input_ids[start : start + max_tokens]
            skipped = item.num_skipped if start == 0 else 0
            pieces.append(replace(item, input_ids=ids, num_skipped=skipped))
            owners.append(index)
    return pieces, np.array(owners, np.int32)


class PieceGathering:
    """Vectors of pieces, averaged: each counts as much as it has tokens."""

    def __init__(self, plan: Plan, num_tokens: IntArray, owners: IntArray) -> None:
        """Gather pieces.

        Args:
            plan: How the request is answered.
            num_tokens: [pieces] int32.
            owners: [pieces] int32, which input each is of; ascending.
        """
        self._pieces: Gathering = make_gathering(plan, num_tokens)
        self._owners = owners
        self._is_unit = plan.is_unit

    def receive(self, index: int, values: FloatArray, input_ids: IntArray, /) -> None:
        """Take one piece's vector."""
        self._pieces.receive(index, values, input_ids)

    def result(self) -> EmbedResult:
        """Average; a mean of unit vectors gets unit length again, where vectors have it."""
        pieces = self._pieces.result()
        starts = np.flatnonzero(np.diff(self._owners, prepend=-1))
        num_pieces = np.diff(starts, append=len(self._owners))
        num_tokens = np.add.reduceat(pieces.num_tokens, starts)
        shares = (pieces.num_tokens / num_tokens[self._owners]).astype(np.float32)
        means: FloatArray = np.add.reduceat(pieces.vectors * shares[:, None], starts, axis=0)
        if self._is_unit:
            norms = np.linalg.norm(pieces.vectors, axis=1)
            is_unit = np.abs(norms - 1) <= _UNIT_TOLERANCE
            scaled = (num_pieces > 1) & np.logical_and.reduceat(is_unit, starts)
            means[scaled] = vectors.finish(means[scaled], dimensions=None, normalize=True)
        # What was one piece is left as it was, to the last bit.
        whole = num_pieces == 1
        means[whole] = pieces.vectors[starts[whole]]
        return EmbedResult(
            vectors=means,
            offsets=np.arange(len(starts) + 1, dtype=np.int64),
            num_tokens=num_tokens.astype(np.int32),
        )


class SpanGathering:
    """Vectors of the tokens of one long text, averaged over spans of it."""

    def __init__(self, plan: Plan, offsets: npt.NDArray[np.int64]) -> None:
        """Gather spans.

        Args:
            plan: How the request is answered.
            offsets: [N+1] int64, input i has the tokens `offsets[i]:offsets[i+1]`.
        """
        self._plan = plan
        self._offsets = offsets
        self._means = np.empty((0, 0), np.float32)

    def receive(self, _: int, values: FloatArray, __: IntArray, /) -> None:
        """Take the vectors of all tokens."""
        sums: FloatArray = np.add.reduceat(values, self._offsets[:-1], axis=0)
        self._means = sums / np.diff(self._offsets).astype(np.float32)[:, None]

    def result(self) -> EmbedResult:
        """Give one vector for each span."""
        means = self._means
        if self._plan.center:
            means = means - means.mean(axis=1, keepdims=True)
        return EmbedResult(
            vectors=vectors.finish(
                means, dimensions=self._plan.dimensions, normalize=self._plan.normalize
            ),
            offsets=np.arange(len(self._offsets), dtype=np.int64),
            num_tokens=np.diff(self._offsets).astype(np.int32),
        )
