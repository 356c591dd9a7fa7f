"""The results of one request's inputs, gathered as they come, in any order."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from embed_runtime import vectors
from embed_runtime.errors import EngineError
from embed_runtime.manifest import Sparse
from embed_runtime.plan import Plan
from embed_runtime.sparse import to_sparse
from embed_runtime.types import TOKEN_OUTPUTS, EmbedResult, FloatArray, IntArray


class Gathering(Protocol):
    """Takes what the engine gave for each input, and makes the answer of all."""

    def receive(self, index: int, values: FloatArray, input_ids: IntArray, /) -> None:
        """Take one input's share; what is kept of it is copied.

        Args:
            index: Which input.
            values: [1, D] float32, or [T, D] of an output with a row for each token.
            input_ids: [T] its tokens.

        Raises:
            EngineError: There is no memory for it.
        """
        ...

    def result(self) -> EmbedResult:
        """Give the answer, once every input was received."""
        ...


def make_gathering(plan: Plan, num_tokens: IntArray) -> Gathering:
    """Choose how to gather.

    Args:
        plan: How the request is answered.
        num_tokens: [N] int32, tokens of each input.
    """
    if plan.sparse is not None:
        return _SparseGathering(plan.sparse, num_tokens)
    return _VectorGathering(plan, num_tokens)


class _VectorGathering:
    """Vectors, each copied to its place in one array."""

    def __init__(self, plan: Plan, num_tokens: IntArray) -> None:
        self._plan = plan
        self._num_tokens = num_tokens
        self._vectors: FloatArray | None = None
        if plan.output in TOKEN_OUTPUTS:
            counts = np.maximum(num_tokens.astype(np.int64) - plan.num_dropped, 0)
            self._offsets = _to_offsets(counts)
        else:
            self._offsets = np.arange(len(num_tokens) + 1, dtype=np.int64)

    def receive(self, index: int, values: FloatArray, _: IntArray, /) -> None:
        if self._vectors is None:
            size = self._plan.dimensions
            size = values.shape[1] if size is None else size
            try:
                self._vectors = np.empty((self._offsets[-1], size), np.float32)
            except MemoryError as error:
                raise EngineError("not enough memory for the vectors of this request") from error
        start, stop = self._offsets[index], self._offsets[index + 1]
        if self._plan.center:
            values = values - values.mean(axis=1, keepdims=True)
        kept = values[self._plan.num_dropped :, : self._vectors.shape[1]]
        self._vectors[start:stop] = kept

    def result(self) -> EmbedResult:
        assert self._vectors is not None
        return EmbedResult(
            vectors=vectors.finish(self._vectors, dimensions=None, normalize=self._plan.normalize),
            offsets=self._offsets,
            num_tokens=self._num_tokens,
        )


class _SparseGathering:
    """Weights: what is received is made sparse at once, so the zeros are never held."""

    def __init__(self, sparse: Sparse, num_tokens: IntArray) -> None:
        self._sparse = sparse
        self._num_tokens = num_tokens
        nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        self._found: list[tuple[IntArray, FloatArray]] = [nothing] * len(num_tokens)

    def receive(self, index: int, values: FloatArray, input_ids: IntArray, /) -> None:
        try:
            self._found[index] = to_sparse(values, input_ids, self._sparse)
        except MemoryError as error:
            raise EngineError("not enough memory for the weights of this request") from error

    def result(self) -> EmbedResult:
        return EmbedResult(
            vectors=np.concatenate([weights for _, weights in self._found]),
            offsets=_to_offsets(np.array([len(ids) for ids, _ in self._found], np.int64)),
            num_tokens=self._num_tokens,
            token_ids=np.concatenate([ids for ids, _ in self._found]),
        )


def _to_offsets(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
