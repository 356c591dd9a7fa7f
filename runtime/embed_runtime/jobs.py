"""One request on its way through the queue: it gathers its rows and answers once."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from embed_runtime.batching import Row
from embed_runtime.errors import EngineError
from embed_runtime.gathering import Gathering, make_gathering
from embed_runtime.plan import Plan
from embed_runtime.types import EmbedResult, FloatArray, IntArray, OutputName, TokenizedInput


class Job(Future[EmbedResult]):
    """A request that was accepted, and the future its caller holds.

    Cancelling it drops what has not run yet. The scheduler alone settles it.

    Attributes:
        inputs: Its inputs; none any more once they wait.
        rows: Where they wait.
        output: What is computed for each of them.
        use_cache: Whether that may come from the result cache and stay there.
        num_inputs: N.
        num_tokens: Tokens of all inputs.
        missing: Indexes of the inputs that the engine must compute; None before the result cache
            was asked for them.
        is_open: Whether it is still to be settled.
    """

    def __init__(
        self,
        inputs: Sequence[TokenizedInput],
        plan: Plan,
        *,
        first_index: int = 0,
        name_input: Callable[[int], str] = "input {}".format,
        gathering: Gathering | None = None,
        owners: IntArray | None = None,
    ) -> None:
        """Describe the work.

        Args:
            inputs: At least one.
            plan: What the engine computes for each, and what becomes of it.
            first_index: Position of the first input in what the caller gave.
            name_input: What error messages call an input, by its position there.
            gathering: Makes the answer, where that is not what the plan alone says.
            owners: Which of the caller's inputs each input here is a piece of, where they differ.
        """
        super().__init__()
        self.inputs = inputs
        self.rows: Sequence[Row[Target]] = ()
        self.output: OutputName = plan.output
        self.use_cache = plan.use_cache
        self.num_inputs = len(inputs)
        num_tokens = [len(item.input_ids) for item in inputs]
        self.num_tokens = sum(num_tokens)
        self.missing: Sequence[int] | None = None
        self.is_open = True
        self.on_cancel: Callable[[Job], None] | None = None
        self._num_missing = len(inputs)
        self._gathering: Gathering | None = gathering or make_gathering(
            plan, np.array(num_tokens, np.int32)
        )
        self._first_index = first_index
        self._name_input = name_input
        self._owners = owners

    def name(self, index: int) -> str:
        """Say in the caller's words which input this is or belongs to, for error messages."""
        own = index if self._owners is None else int(self._owners[index])
        return self._name_input(self._first_index + own)

    def cancel(self) -> bool:
        """Cancel, unless the answer is there; see `Future.cancel`."""
        is_cancelled = super().cancel()
        if is_cancelled and self.on_cancel is not None:
            self.on_cancel(self)
        return is_cancelled

    def receive(self, index: int, values: FloatArray, input_ids: IntArray) -> bool:
        """Take the output of one input; see `Gathering.receive`.

        Returns:
            Whether that was the last one missing. False where the job was settled meanwhile: its
            caller may cancel it in any thread, at any time.

        Raises:
            EngineError: There is no memory for it.
        """
        gathering = self._gathering
        if gathering is None:
            return False
        gathering.receive(index, values, input_ids)
        self._num_missing -= 1
        return not self._num_missing

    def settle(self, error: Exception | None = None) -> None:
        """Answer, with what was received or with an error; a cancelled job is left at that."""
        result = None
        if error is None and not self.cancelled():
            try:
                assert self._gathering is not None
                result = self._gathering.result()
            except Exception as fault:  # noqa: BLE001, nobody else could answer this job any more
                error = EngineError(f"the vectors of this request cannot be finished: {fault!r}")
        self.inputs, self.rows, self._gathering = (), (), None  # a kept future shall be small
        if not self.set_running_or_notify_cancel():
            return
        if result is not None:
            self.set_result(result)
        else:
            self.set_exception(error)


Target = tuple[Job, int]
