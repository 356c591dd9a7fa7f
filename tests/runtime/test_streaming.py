"""What many texts become on their way: windows of them, and one array of their vectors."""

import tracemalloc

import numpy as np
import pytest

from embed_runtime.streaming import VectorBuffer

NUM_WINDOWS, SHAPE = 100, (500, 64)


@pytest.mark.parametrize("is_view", [False, True])
def test_vectors_of_unknown_number_are_held_once(is_view: bool) -> None:
    def window(number: int) -> np.typing.NDArray[np.float32]:
        values = np.full(SHAPE, number, np.float32)
        return values[:, :] if is_view else values

    tracemalloc.start()
    try:
        buffer = VectorBuffer(iter(()))
        for number in range(NUM_WINDOWS):
            buffer.add(window(number))
        vectors = buffer.result()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(vectors[:: SHAPE[0], 0], np.arange(NUM_WINDOWS))
    assert vectors.shape == (NUM_WINDOWS * SHAPE[0], SHAPE[1])
    assert peak < 1.4 * vectors.nbytes
