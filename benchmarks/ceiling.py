"""How fast this machine multiplies matrices of a model's shapes: the ceiling of any engine."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from embed_runtime.types import Precision

if TYPE_CHECKING:
    from torch import Tensor

_NUM_ROWS = 2048
_PASS_SECONDS = 0.5


class Ceiling:
    """Passes of matrix products as one layer does them, on rows of 2,048 tokens."""

    def __init__(
        self, *, precision: Precision, products: Sequence[tuple[int, int]], num_threads: int
    ) -> None:
        """Allocate the matrices in the process that multiplies them.

        Args:
            precision: Of the factors.
            products: Width in and width out of each product of one layer.
            num_threads: Threads of one product.
        """
        import torch

        torch.set_num_threads(num_threads)
        # Products of 8-bit integers are sums of 32 bits; they have a function of their own.
        multiply = torch.ops.aten._int_mm if precision == "int8" else torch.mm  # noqa: SLF001
        self._products: list[Callable[[], object]] = [
            partial(multiply, _matrix(precision, _NUM_ROWS, wide), _matrix(precision, wide, out))
            for wide, out in products
        ]
        self._flops = sum(2 * _NUM_ROWS * wide * out for wide, out in products)

    def run(self) -> float:
        """Multiply for half a second and return the rate in FLOP/s."""
        layers = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < _PASS_SECONDS:
            for multiply in self._products:
                multiply()
            layers += 1
        return layers * self._flops / elapsed

    def close(self) -> None:
        """Free the matrices."""
        self._products.clear()


def _matrix(precision: Precision, rows: int, columns: int) -> "Tensor":
    import torch

    if precision == "int8":
        return torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return torch.randn(rows, columns, dtype=dtype)
