"""A traced model's operators, copied into one of our graphs."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx import AttributeProto

from embed_export.errors import UnsupportedModelError
from embed_export.graph import Graph, Value
from embed_export.tracing import Traced
from embed_runtime.types import FloatArray, Precision

_PRECISIONS: dict[ir.DataType, Precision] = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
}


def write_traced(graph: Graph, traced: Traced, hidden_size: int) -> Value:
    """Write a traced model; returns its last hidden state, a token tensor.

    Its code reads rows, so the packed dialects pad ids in front of it and unpad states behind it.

    Raises:
        UnsupportedModelError: It has an operator that engines lack.
    """
    inputs = {"input_ids": graph.pad(graph.input_ids), "attention_mask": graph.integer_mask}
    return graph.unpad(_Writer(graph, traced, inputs).write(), hidden_size)


class _Writer:
    """Copies nodes; knows what each traced value is called in the graph."""

    def __init__(self, graph: Graph, traced: Traced, inputs: Mapping[str, Value]) -> None:
        self._graph = graph
        self._traced = traced
        self._values = {one: inputs[str(one.name)] for one in traced.graph.inputs}

    def write(self) -> Value:
        """Copy every node in order; returns the output."""
        for node in self._traced.graph:
            self._copy(node)
        [output] = self._traced.graph.outputs
        return self._values[output]

    def _copy(self, node: ir.Node) -> None:
        self._values.update(zip(node.outputs, self._outputs(node), strict=True))

    def _outputs(self, node: ir.Node) -> Sequence[Value]:
        first = node.inputs[0] if node.inputs else None
        if node.op_type == "Identity":
            return [self._input(first)]
        if first is not None and self._traced.holds(first):
            if node.op_type == "Transpose":
                axes = node.attributes.get_ints("perm")
                return [self._weight(first, axes)]
            if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
                return [self._rows(first, self._input(node.inputs[1]))]
        return self._graph.ops(
            node.op_type,
            [self._input(value) for value in node.inputs],
            {name: _attribute(node, one) for name, one in node.attributes.items()},
            num_outputs=len(node.outputs),
            domain=node.domain,
        )

    def _input(self, value: ir.Value | None) -> Value:
        if value is None:
            return ""
        if value not in self._values:
            self._values[value] = self._initializer(value)
        return self._values[value]

    def _initializer(self, value: ir.Value) -> Value:
        if self._traced.holds(value):
            return self._weight(value)
        constant = value.const_value
        assert constant is not None, value
        return self._graph.constant(constant.numpy(), constant.dtype.value)

    def _weight(self, value: ir.Value, axes: Sequence[int] | None = None) -> Value:
        """Return a weight as it was traced, with its axes in another order if that is wanted."""
        stored = self._stored(value, axes)
        wanted = self._precision(value)
        return stored if self._storage(value) == wanted else self._graph.cast_once(stored, wanted)

    def _rows(self, table: ir.Value, ids: Value) -> Value:
        """Look rows up; converted after the look-up, a few rows instead of the whole table."""
        rows = self._graph.op("Gather", [self._stored(table), ids])
        wanted = self._precision(table)
        return rows if self._storage(table) == wanted else self._graph.cast(rows, wanted)

    def _stored(self, value: ir.Value, axes: Sequence[int] | None = None) -> Value:
        def make() -> FloatArray:
            tensor = value.const_value
            assert tensor is not None, "a dialect before this one has written it"
            array = tensor.numpy().astype(np.float32, copy=False)
            return array if axes is None else array.transpose(axes)

        name = str(value.name)
        if axes is not None:
            name = f"{name}.{''.join(str(axis) for axis in axes)}"
        return self._graph.stored(name, self._storage(value), make)

    def _storage(self, value: ir.Value) -> Precision:
        """Tell how a weight is stored: matrices as the bundle wants it, the rest in float32."""
        is_matrix = value.shape is not None and len(value.shape) > 1
        return self._graph.storage if is_matrix else "fp32"

    def _precision(self, value: ir.Value) -> Precision:
        assert value.dtype is not None
        return _PRECISIONS[value.dtype]


def _attribute(node: ir.Node, attribute: ir.Attr) -> AttributeProto:
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        raise UnsupportedModelError(
            f"the model's code branches on its values (operator {node.op_type}), which engines do"
            " not all do; it cannot be exported"
        )
    return ir.serde.serialize_attribute(attribute)
