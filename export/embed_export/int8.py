"""Matrix products in int8: what is stored, and what an engine makes of it.

A weight has one scale for each output channel, an activation one for each token, taken when it
comes: no text depends on its neighbours, and an outlier token costs nobody else precision. Outlier
channels would cost every token precision; they are divided by a factor found beforehand and their
weights multiplied by it, half of the outlier moving over (SmoothQuant, arXiv 2211.10438).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from embed_export.graph import Graph, Value
from embed_runtime.types import FloatArray

# The largest magnitude of symmetric int8, and what makes it uint8: x86 dot products want unsigned
# numbers on the left.
INT8_LIMIT = 127
UINT8_ZERO = 128
UINT8_LIMIT = 255
# Keeps the scale of an all-zero row from being zero; any smaller activation rounds to zero anyway.
SMALLEST_SCALE = 1e-8
# Channels below this share of the median count as that large: on other text they may be.
SMALLEST_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    """A weight as it is stored.

    Attributes:
        levels: [in_features, out_features], whole numbers.
        scales: [out_features], what one level is worth.
        shrink: [in_features], factor on activations; the weights have its inverse.
    """

    levels: FloatArray
    scales: FloatArray
    shrink: FloatArray


def embed_rows(graph: Graph, name: str, ids: Value, table: Callable[[], FloatArray]) -> Value:
    """Look rows of a table up; each row has a scale of its own."""
    levels, scales = _stored_table(graph, name, table)
    rows = graph.cast(graph.op("Gather", [levels, ids]), "fp32")
    return graph.op("Mul", [rows, graph.op("Gather", [scales, ids])])


def some_rows(
    graph: Graph, name: str, table: Callable[[], FloatArray], start: int, stop: int
) -> Value:
    """Return some rows of a table that `embed_rows` looks up, as float32."""
    levels, scales = _stored_table(graph, name, table)
    rows = graph.cast(graph.slice_rows(levels, start, stop), "fp32")
    return graph.op("Mul", [rows, graph.slice_rows(scales, start, stop)])


def product(
    graph: Graph,
    values: Value,
    name: str,
    weight: Callable[[], FloatArray],
    lowest: float | None,
) -> Value:
    """Multiply by a weight, [out_features, in_features].

    `packed-int8` multiplies integers. The other dialects say what the stored numbers are worth and
    multiply floats, which every engine can; OpenVINO makes integers of those by itself.

    Args:
        graph: Where to.
        values: A token tensor.
        name: The weight's.
        weight: Gives it.
        lowest: What no value is below, where that is near zero; None where signs are alike.
    """

    @cache
    def packed() -> _Packed:
        return _pack(weight(), graph.channel_maxima.get(name) if lowest is None else None)

    if lowest is None and name in graph.channel_maxima:
        shrink = graph.stored(f"{name}.shrink", "fp32", lambda: packed().shrink)
        values = graph.op("Mul", [values, shrink])
    levels = graph.stored(name, "int8", lambda: packed().levels)
    scales = graph.stored(f"{name}.scale", "fp32", lambda: packed().scales)
    if graph.dialect != "packed-int8":
        matrix = graph.op("DequantizeLinear", [levels, scales], {"axis": 1})
        return graph.op("MatMul", [values, matrix])
    if lowest is None:
        return _integer_product(graph, values, levels, scales, limit=INT8_LIMIT, zero=UINT8_ZERO)
    # Counted from the lowest value the levels are all used; what that leaves out is a constant.
    above = graph.op("Sub", [values, graph.number(lowest)])
    values = _integer_product(graph, above, levels, scales, limit=UINT8_LIMIT, zero=0)
    rest = graph.stored(f"{name}.rest", "fp32", lambda: _rest(packed(), lowest))
    return graph.op("Add", [values, rest])


def _stored_table(graph: Graph, name: str, table: Callable[[], FloatArray]) -> tuple[Value, Value]:
    levels = graph.stored(name, "int8", lambda: _round(table(), _scales(table())))
    return levels, graph.stored(f"{name}.scale", "fp32", lambda: _scales(table()))


def _integer_product(
    graph: Graph, values: Value, levels: Value, scales: Value, *, limit: int, zero: int
) -> Value:
    """Round each token to `zero`, give or take `limit` levels, and multiply."""
    axis = graph.integers([-1])
    largest = graph.op("ReduceMax", [values, axis])
    if zero:
        smallest = graph.op("ReduceMin", [values, axis])
        largest = graph.op("Max", [largest, graph.op("Neg", [smallest])])
    token_scales = graph.op("Mul", [largest, graph.number(1 / limit)])
    token_scales = graph.op("Max", [token_scales, graph.number(SMALLEST_SCALE)])
    one, offset = graph.number(1.0), graph.uint8(zero)
    rounded = graph.op("QuantizeLinear", [graph.op("Div", [values, token_scales]), one, offset])
    # ONNX Runtime's own node: MatMulInteger and the factor for each column in one pass.
    sums = graph.op(
        "MatMulIntegerToFloat", [rounded, levels, one, scales, offset], domain="com.microsoft"
    )
    return graph.op("Mul", [sums, token_scales])


def _pack(weight: FloatArray, channel_maxima: FloatArray | None) -> _Packed:
    shrink = np.ones(weight.shape[1], np.float32)
    if channel_maxima is not None:
        shrink = _shrink(weight, channel_maxima)
    weight = weight / shrink
    scales = _scales(weight)
    return _Packed(levels=_round(weight, scales).T, scales=scales.reshape(-1), shrink=shrink)


def _shrink(weight: FloatArray, channel_maxima: FloatArray) -> FloatArray:
    """Find factors that leave each channel as large in the activations as in the weights."""
    activations = _at_least_a_share(channel_maxima)
    weights = _at_least_a_share(np.abs(weight).max(axis=0))
    factors: FloatArray = np.sqrt(weights / activations).astype(np.float32)
    return factors


def _at_least_a_share(magnitudes: FloatArray) -> FloatArray:
    smallest = max(SMALLEST_SHARE * float(np.median(magnitudes)), SMALLEST_SCALE)
    return np.maximum(magnitudes, np.float32(smallest))


def _scales(table: FloatArray) -> FloatArray:
    """[rows, 1] scales that map each row's largest magnitude to `INT8_LIMIT`."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales: FloatArray = np.maximum(largest / INT8_LIMIT, SMALLEST_SCALE).astype(np.float32)
    return scales


def _round(table: FloatArray, scales: FloatArray) -> FloatArray:
    levels: FloatArray = np.rint(table / scales)
    return levels


def _rest(packed: _Packed, lowest: float) -> FloatArray:
    """[out_features] product of a token whose every value is `lowest`."""
    rest: FloatArray = np.float32(lowest) * packed.levels.sum(axis=0) * packed.scales
    return rest
