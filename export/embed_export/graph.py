"""One ONNX graph in one dialect: nodes, constants, weights, and the step between tokens and rows.

Every node is placed by `layers.py`, `pooler.py` and the recipes, or copied by `traced_graph.py` for
a model without one. So the packed and the padded form of a model differ only in `pad` and `unpad`,
weights go to the file one tensor at a time, and every type is what a strongly typed TensorRT
network needs.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from embed_export.errors import ExportError
from embed_runtime.manifest import Dialect, Positions
from embed_runtime.types import FloatArray, Precision

# 20 has Gelu and LayerNormalization; from 23 on come fused nodes that ONNX Runtime or TensorRT-RTX
# refuse (RotaryEmbedding with a batch of 1, Attention in fp32).
OPSET = 20
# The IR version released with opset 20 (onnx, docs/Versioning.md).
IR_VERSION = 9
# Weights start on page boundaries, so that a loader can map them.
ALIGNMENT_BYTES = 4096
# Added to the score of a masked slot: exp(-1e4) is 0 in every precision, and fp16 can hold it.
MASKED_SCORE = -1e4

Value: TypeAlias = str
Attribute: TypeAlias = int | float | str | Sequence[int] | AttributeProto
MakeArray: TypeAlias = Callable[[], FloatArray]

_ONNX_TYPES: dict[Precision, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
}
_NUMPY_TYPES: dict[Precision, npt.DTypeLike] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "int8": np.int8,
}
_COMPUTE: dict[Dialect, Precision] = {
    "padded": "fp32",
    "packed": "fp32",
    "packed-fp16": "fp16",
    "packed-bf16": "bf16",
    "packed-int8": "fp32",
}


class WeightsFile:
    """The external data file that all graphs of a bundle share; each tensor is written once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, TensorProto] = {}
        self._file = path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def num_bytes(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def tensor(self, name: str, dtype: Precision, make: MakeArray) -> TensorProto:
        """Return the initializer that points at this weight, writing it if it is new.

        Args:
            name: Its name in every graph; the same name means the same tensor.
            dtype: How it is stored.
            make: Gives the array in float32; called once, when the tensor is new.

        Raises:
            ExportError: A value does not fit the type.
        """
        if name not in self._tensors:
            array = make()
            with np.errstate(over="ignore"):
                stored = np.ascontiguousarray(array.astype(_NUMPY_TYPES[dtype]))
            if not np.isfinite(stored.astype(np.float32)).all():
                largest = float(np.abs(array).max())
                raise ExportError(
                    f"weight {name} has values up to {largest:g}, more than {dtype} can hold; "
                    "export with --bf16 or --fp32"
                )
            self._tensors[name] = self._write(name, dtype, stored)
        return self._tensors[name]

    def _write(self, name: str, dtype: Precision, stored: npt.NDArray[np.generic]) -> TensorProto:
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT_BYTES))
        offset = self._file.tell()
        # memoryview does not know bfloat16; a view as bytes is the same memory.
        self._file.write(stored.reshape(-1).view(np.uint8).data)
        tensor = TensorProto(
            name=name,
            dims=stored.shape,
            data_type=_ONNX_TYPES[dtype],
            data_location=TensorProto.EXTERNAL,
        )
        location = {"location": self._path.name, "offset": offset, "length": stored.nbytes}
        for key, value in location.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class Graph:
    """Collects the nodes of one graph.

    Token tensors are [T, N] in the packed dialects and [B, S, N] in the padded one; `pad` and
    `unpad` step from tokens to rows [B, S, N] and back, and are nothing in the padded dialect.

    Attributes:
        dialect: Which inputs the graph has.
        storage: The precision that matrices are stored in.
        compute: The precision that layers compute in; pooling and norms of vectors use float32.
        max_tokens: Longest row the graph must take.
        channel_maxima: [in_features] largest magnitudes seen in what a linear layer reads, under
            the name of its weight; int8 wants them.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        storage: Precision,
        weights: WeightsFile,
        positions: Positions,
        max_tokens: int,
        channel_maxima: Mapping[str, FloatArray] | None = None,
    ) -> None:
        self.dialect: Dialect = dialect
        self.storage: Precision = storage
        self.max_tokens = max_tokens
        self.channel_maxima: Mapping[str, FloatArray] = channel_maxima or {}
        self.compute: Precision = _COMPUTE[dialect]
        self._weights = weights
        self._positions = positions
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: dict[str, ValueInfoProto] = {}
        self._outputs: dict[str, ValueInfoProto] = {}
        self._made: dict[str, Value] = {}
        self.input_ids = self._input("input_ids", TensorProto.INT64, self._token_axes())

    @property
    def packed(self) -> bool:
        """Whether tokens stand in one row without padding."""
        return self.dialect != "padded"

    # Nodes and constants.

    def op(
        self,
        kind: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        domain: str = "",
    ) -> Value:
        """Add a node with one output and return that output."""
        return self.ops(kind, inputs, attributes, num_outputs=1, domain=domain)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        num_outputs: int,
        domain: str = "",
    ) -> list[Value]:
        """Add a node with several outputs and return them in order."""
        name = f"{kind}_{len(self._nodes)}"
        outputs = [name] if num_outputs == 1 else [f"{name}_{i}" for i in range(num_outputs)]
        node = helper.make_node(kind, inputs, outputs, name=name, domain=domain)
        for key, value in (attributes or {}).items():
            ready = isinstance(value, AttributeProto)
            node.attribute.append(value if ready else helper.make_attribute(key, value))
        self._nodes.append(node)
        return outputs

    def integers(self, values: Sequence[int] | int) -> Value:
        """Return an int64 constant: a vector, or a scalar for a bare number."""
        array = np.asarray(values, dtype=np.int64)
        label = "_".join(str(value) for value in array.reshape(-1))
        name = f"int_{'scalar_' if array.ndim == 0 else ''}{label}"
        return self._constant(name, array, TensorProto.INT64)

    def uint8(self, value: int) -> Value:
        """Return a uint8 scalar constant."""
        return self._constant(f"uint8_{value}", np.asarray(value, np.uint8), TensorProto.UINT8)

    def number(self, value: float, dtype: Precision | None = None) -> Value:
        """Return a scalar constant in the compute precision, or in the one given."""
        dtype = dtype or self.compute
        array = np.asarray(value, dtype=np.float32).astype(_NUMPY_TYPES[dtype])
        return self._constant(f"number_{dtype}_{value!r}", array, _ONNX_TYPES[dtype])

    def table(self, name: str, array: FloatArray, dtype: Precision | None = None) -> Value:
        """Return a small constant array, kept in the graph file itself."""
        dtype = dtype or self.compute
        return self._constant(
            f"{name}_{dtype}", array.astype(_NUMPY_TYPES[dtype]), _ONNX_TYPES[dtype]
        )

    def constant(self, array: npt.NDArray[np.generic], onnx_type: int) -> Value:
        """Return a constant of any type, kept in the graph file itself; equal ones are one."""
        digest = sha256(array.tobytes()).hexdigest()[:16]
        sizes = "x".join(str(size) for size in array.shape)
        return self._constant(f"constant_{onnx_type}_{sizes}_{digest}", array, onnx_type)

    def cast(self, value: Value, dtype: Precision) -> Value:
        """Convert a value to another precision."""
        return self.op("Cast", [value], {"to": _ONNX_TYPES[dtype]})

    def widen(self, value: Value) -> Value:
        """Convert a value of the compute precision to float32."""
        return value if self.compute == "fp32" else self.cast_once(value, "fp32")

    def narrow(self, value: Value) -> Value:
        """Convert a float32 value to the compute precision."""
        return value if self.compute == "fp32" else self.cast(value, self.compute)

    # Weights.

    def vector(self, name: str, make: MakeArray) -> Value:
        """Return a bias or a norm's weight in the compute precision; it is stored in float32."""
        value = self._weight(name, "fp32", make)
        return value if self.compute == "fp32" else self.cast_once(value, self.compute)

    def matrix(self, name: str, make: MakeArray) -> Value:
        """Return a weight matrix in the compute precision; it is stored in `storage`."""
        value = self._weight(name, self.storage, make)
        return value if self.compute == self.storage else self.cast_once(value, self.compute)

    def stored(self, name: str, dtype: Precision, make: MakeArray) -> Value:
        """Return a weight in the precision it is stored in."""
        return self._weight(name, dtype, make)

    def slice_rows(self, table: Value, start: int, stop: int) -> Value:
        """Return some rows of a weight; loaders fold it away."""
        ends = [self.integers([start]), self.integers([stop]), self.integers([0])]
        return self.op("Slice", [table, *ends])

    def cast_once(self, value: Value, dtype: Precision) -> Value:
        """Convert a value, or use the node that did it before; of a weight, loaders fold it."""
        return self.once(f"{value} as {dtype}", lambda: self.cast(value, dtype))

    def once(self, key: str, make: Callable[[], Value]) -> Value:
        """Return the value made under this key, making it the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    # Tokens and rows.

    def pad(self, tokens: Value) -> Value:
        """Turn a token tensor into rows [B, S, N]; slots of padding hold some other token."""
        if not self.packed:
            return tokens
        return self.op("Gather", [tokens, self.pad_index])

    def unpad(self, rows: Value, width: int) -> Value:
        """Turn rows [B, S, width] into a token tensor."""
        if not self.packed:
            return rows
        flat = self.op("Reshape", [rows, self.integers([-1, width])])
        return self.op("Gather", [flat, self._index_input("unpad_index", ["T"])])

    @property
    def pad_index(self) -> Value:
        """[B, S] int64: the packed row of each slot; packed dialects only."""
        return self._index_input("pad_index", ["B", "S"])

    @property
    def position_ids(self) -> Value:
        """Position of each token, counted as the model counts: [T] packed, [B, S] padded."""
        if self.packed:
            return self._index_input("position_ids", ["T"])
        return self.once("position_ids", self._padded_positions)

    @property
    def mask(self) -> Value:
        """[B, S] float32: 1 for tokens, 0 for padding."""
        if self.packed:
            return self._input("attention_mask", TensorProto.FLOAT, ["B", "S"])
        return self.once("mask", lambda: self.cast(self.integer_mask, "fp32"))

    @property
    def integer_mask(self) -> Value:
        """[B, S] int64: the same."""
        if self.packed:
            to_integer = {"to": TensorProto.INT64}
            return self.once("integer_mask", lambda: self.op("Cast", [self.mask], to_integer))
        return self._input("attention_mask", TensorProto.INT64, ["B", "S"])

    @property
    def pool_mask(self) -> Value:
        """[B, S] float32: 1 for tokens that are pooled; an input of its own."""
        return self._input("pool_mask", TensorProto.FLOAT, ["B", "S"])

    @property
    def adapter_ids(self) -> Value:
        """Index of each token's adapter, -1 for none: [T] packed; [B] padded, one for each row."""
        return self._index_input("adapter_ids", ["T"] if self.packed else ["B"])

    @property
    def mask_bias(self) -> Value:
        """[B, 1, 1, S] in the compute precision: 0 for tokens, `MASKED_SCORE` for padding."""
        return self.once("mask_bias", self._mask_bias)

    def output(self, name: str, value: Value, axes: Sequence[str | int]) -> None:
        """Name a float32 value as an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self._outputs[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    def save(self, path: Path, *, metadata: Mapping[str, str]) -> None:
        """Write the graph; its weights are in the shared file beside it."""
        model: ModelProto = helper.make_model(
            helper.make_graph(
                self._nodes,
                path.stem,
                list(self._inputs.values()),
                list(self._outputs.values()),
                list(self._initializers.values()),
            ),
            opset_imports=[
                helper.make_opsetid(domain, 1 if domain else OPSET)
                for domain in sorted({"", *(node.domain for node in self._nodes)})
            ],
            ir_version=IR_VERSION,
            producer_name="embed-export",
        )
        helper.set_model_props(model, dict(metadata))
        path.write_bytes(model.SerializeToString())

    def _token_axes(self) -> list[str]:
        return ["T"] if self.packed else ["B", "S"]

    def _input(self, name: str, onnx_type: int, axes: Sequence[str]) -> Value:
        if name not in self._inputs:
            self._inputs[name] = helper.make_tensor_value_info(name, onnx_type, axes)
        return name

    def _index_input(self, name: str, axes: Sequence[str]) -> Value:
        return self._input(name, TensorProto.INT64, axes)

    def _constant(self, name: str, array: npt.NDArray[np.generic], onnx_type: int) -> Value:
        if name not in self._initializers:
            self._initializers[name] = helper.make_tensor(
                name, onnx_type, array.shape, array.tobytes(), raw=True
            )
        return name

    def _weight(self, name: str, dtype: Precision, make: MakeArray) -> Value:
        if name not in self._initializers:
            self._initializers[name] = self._weights.tensor(name, dtype, make)
        return name

    def _mask_bias(self) -> Value:
        hidden = self.op("Sub", [self.mask, self.number(1.0, "fp32")])
        bias = self.op("Mul", [hidden, self.number(-MASKED_SCORE, "fp32")])
        return self.op("Unsqueeze", [self.narrow(bias), self.integers([1, 2])])

    def _padded_positions(self) -> Value:
        counted = self._input("attention_mask", TensorProto.INT64, ["B", "S"])
        if self._positions.skip_id is not None:
            same = self.op("Equal", [self.input_ids, self.integers(self._positions.skip_id)])
            counted = self.op("Cast", [self.op("Not", [same])], {"to": TensorProto.INT64})
        before = self.op("CumSum", [counted, self.integers(1)])
        if self._positions.skip_id is None:
            # Slots of padding may get any position inside the table.
            start = self.op("Sub", [before, self.integers(1)])
            start = self.op("Max", [start, self.integers(0)])
            offset = self._positions.offset
        else:
            start = self.op("Mul", [before, counted])
            offset = self._positions.offset - 1
        return self.op("Add", [start, self.integers(offset)]) if offset else start
