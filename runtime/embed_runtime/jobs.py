"""One request on its way through the queue: it gathers its rows and answers once."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from embed_runtime import vectors
from embed_runtime.batching import Row
from embed_runtime.errors import EngineError
from embed_runtime.types import EmbedResult, FloatArray, OutputName, TokenizedInput


class Job(Future[EmbedResult]):
    """A request that was accepted, and the future its caller holds.

    Cancelling it drops what has not run yet. The scheduler alone settles it.

    Attributes:
        inputs: Its inputs; none any more once they wait.
        rows: Where they wait.
        output: What is computed for each of them.
        first_index: Position of the first input in what the caller gave, for error messages.
        num_inputs: N.
        num_tokens: [N] int32.
        is_open: Whether it is still to be settled.
    """

    def __init__(
        self,
        inputs: Sequence[TokenizedInput],
        *,
        output: OutputName,
        dimensions: int | None = None,
        normalize: bool = False,
        first_index: int = 0,
    ) -> None:
        """Describe the work.

        Args:
            inputs: At least one.
            output: What the engine computes for each.
            dimensions: Leading values of each vector to keep; None keeps all.
            normalize: Whether vectors are scaled to unit length after that.
            first_index: Position of the first input, for error messages.
        """
        super().__init__()
        self.inputs = inputs
        self.rows: Sequence[Row[Target]] = ()
        self.output: OutputName = output
        self.first_index = first_index
        self.num_inputs = len(inputs)
        self.num_tokens = np.array([item.num_tokens for item in inputs], np.int32)
        self.is_open = True
        self.on_cancel: Callable[[Job], None] | None = None
        self._dimensions = dimensions
        self._normalize = normalize
        self._num_missing = len(inputs)
        self._vectors: FloatArray | None = None
        counts = self.num_tokens if output == "token_embeddings" else np.ones(len(inputs), np.int64)
        self._offsets = np.zeros(len(inputs) + 1, np.int64)
        np.cumsum(counts, out=self._offsets[1:])

    def cancel(self) -> bool:
        """Cancel, unless the answer is there; see `Future.cancel`."""
        is_cancelled = super().cancel()
        if is_cancelled and self.on_cancel is not None:
            self.on_cancel(self)
        return is_cancelled

    def receive(self, index: int, values: FloatArray) -> bool:
        """Take the vectors of one input.

        Args:
            index: Which input.
            values: [1, D] float32, or [T, D] for one vector a token; copied.

        Returns:
            Whether that was the last one missing.

        Raises:
            EngineError: There is no memory for them.
        """
        if self._vectors is None:
            size = values.shape[1] if self._dimensions is None else self._dimensions
            try:
                self._vectors = np.empty((self._offsets[-1], size), np.float32)
            except MemoryError as error:
                raise EngineError("not enough memory for the vectors of this request") from error
        start, stop = self._offsets[index], self._offsets[index + 1]
        self._vectors[start:stop] = values[:, : self._vectors.shape[1]]
        self._num_missing -= 1
        return not self._num_missing

    def settle(self, error: Exception | None = None) -> None:
        """Answer, with what was received or with an error; a cancelled job is left at that."""
        result = None
        if error is None and not self.cancelled():
            try:
                result = self._gathered()
            except Exception as fault:  # noqa: BLE001, nobody else could answer this job any more
                error = EngineError(f"the vectors of this request cannot be finished: {fault!r}")
        self.inputs, self.rows, self._vectors = (), (), None  # a kept future shall be small
        if not self.set_running_or_notify_cancel():
            return
        if result is not None:
            self.set_result(result)
        else:
            self.set_exception(error)

    def _gathered(self) -> EmbedResult:
        assert self._vectors is not None
        return EmbedResult(
            vectors=vectors.finish(self._vectors, dimensions=None, normalize=self._normalize),
            offsets=self._offsets,
            num_tokens=self.num_tokens,
        )


Target = tuple[Job, int]
