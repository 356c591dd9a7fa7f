"""How fast this machine multiplies matrices of a model's shapes: the ceiling of any engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from embed_runtime.types import Precision

_NUM_ROWS = 2048
_PASS_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingSpec:
    """A ceiling to measure; calling it opens the subject.

    Attributes:
        precision: Of factors and products.
        products: Width in and width out of each product of one layer.
        num_threads: Threads of one product.
    """

    precision: Precision
    products: tuple[tuple[int, int], ...]
    num_threads: int

    def __call__(self) -> "Ceiling":
        """Allocate the matrices in the process that multiplies them."""
        return Ceiling(self)


class Ceiling:
    """Passes of matrix products as one layer does them, on rows of 2,048 tokens."""

    def __init__(self, spec: CeilingSpec) -> None:
        import torch

        torch.set_num_threads(spec.num_threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[spec.precision]
        self._products: list[Callable[[], object]] = [
            partial(
                torch.mm,
                torch.randn(_NUM_ROWS, rows, dtype=dtype),
                torch.randn(rows, columns, dtype=dtype),
            )
            for rows, columns in spec.products
        ]
        self._flops = sum(2 * _NUM_ROWS * rows * columns for rows, columns in spec.products)
        self._rates: list[float] = []

    def run(self) -> None:
        """Multiply for half a second and note the rate."""
        layers = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < _PASS_SECONDS:
            for multiply in self._products:
                multiply()
            layers += 1
        self._rates.append(layers * self._flops / elapsed)

    def outcome(self) -> list[float]:
        """Return the rate of every pass in FLOP/s."""
        return self._rates

    def close(self) -> None:
        """Free the matrices."""
        self._products.clear()
