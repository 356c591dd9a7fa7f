"""Measures how large each channel gets that a linear layer reads: what int8 has to know."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from embed_export.corpus import real_texts
from embed_export.dialects import graph_name, write_graphs
from embed_export.progress import Advance
from embed_export.source import Source
from embed_runtime.types import FloatArray

# With all-MiniLM-L6-v2 a quarter of them costs 0.001 of the smallest cosine.
NUM_TEXTS = 64


def measure_channels(source: Source, folder: Path, advance: Advance) -> Mapping[str, FloatArray]:
    """Run the float32 graph on real text, one text at a time.

    Args:
        source: The model.
        folder: Has room for the graph while this runs.
        advance: Told of each text.

    Returns:
        [in_features] float32 under the name of each weight matrix: the largest magnitudes seen.
    """
    # Documentation of the standard library, which the certificate's texts have nothing of.
    texts = real_texts(NUM_TEXTS)
    with TemporaryDirectory(dir=folder) as path:
        write_graphs(Path(path), replace(source, config=replace(source.config, precision="fp32")))
        graph = Path(path) / graph_name("padded")
        names = _watch(graph)
        session: Any = import_module("onnxruntime").InferenceSession(str(graph))
        needed = {one.name for one in session.get_inputs()}
        largest: list[FloatArray] = []
        for index, text in enumerate(texts):
            input_ids = np.array([source.tokenizer.encode(text, max_tokens=source.spec.max_tokens)])
            ones = np.ones_like(input_ids)
            # With each adapter in turn, and with none.
            adapter = index % (1 + len(source.spec.adapters)) - 1
            inputs = {
                "input_ids": input_ids,
                "attention_mask": ones,
                "pool_mask": ones.astype(np.float32),
                "adapter_ids": np.array([adapter]),
            }
            feeds = {name: array for name, array in inputs.items() if name in needed}
            seen: list[FloatArray] = session.run(list(names.values()), feeds)
            pairs = zip(largest or seen, seen, strict=True)
            largest = [np.maximum(before, now) for before, now in pairs]
            advance(index + 1, len(texts))
    return dict(zip(names, largest, strict=True))


def _watch(path: Path) -> dict[str, str]:
    """Give a graph an output for each matrix product: the largest magnitude of each channel.

    Returns:
        The output's name under that of the weight.
    """
    model = ModelProto.FromString(path.read_bytes())
    graph = model.graph
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) == 2]
    widths = {tensor.name: tensor.dims[0] for tensor in matrices}
    names: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type != "MatMul" or node.input[1] not in widths:
            continue
        weight = node.input[1]
        shape, axis = f"{weight}.shape", f"{weight}.axis"
        flat, sizes, names[weight] = f"{weight}.flat", f"{weight}.sizes", f"{weight}.largest"
        graph.initializer.append(
            helper.make_tensor(shape, TensorProto.INT64, [2], [-1, widths[weight]])
        )
        graph.initializer.append(helper.make_tensor(axis, TensorProto.INT64, [1], [0]))
        graph.node.extend(
            [
                helper.make_node("Reshape", [node.input[0], shape], [flat]),
                helper.make_node("Abs", [flat], [sizes]),
                helper.make_node("ReduceMax", [sizes, axis], [names[weight]], keepdims=0),
            ]
        )
        graph.output.append(
            helper.make_tensor_value_info(names[weight], TensorProto.FLOAT, [widths[weight]])
        )
    path.write_bytes(model.SerializeToString())
    return names
