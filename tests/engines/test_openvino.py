"""What OpenVINO makes of a graph: no more memory than its weights need."""

from collections.abc import Callable
from typing import Any

import pytest

from embed_runtime.engines import LoadSpec, get_backend
from embed_runtime.types import Precision

MakeSpec = Callable[..., LoadSpec]


@pytest.mark.parametrize(
    ("precision", "stored"), [("bf16", "bf16"), ("fp16", "f16"), ("int8", "i8")]
)
def test_weights_are_not_widened(
    precision: Precision, stored: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products take them as they are stored: nothing holds them in float32 in between."""
    library = pytest.importorskip("openvino")
    if get_backend("openvino").precision(precision) != precision:
        pytest.skip(f"this CPU computes {precision} bundles in float32")
    graphs: list[Any] = []
    compile_model = library.Core.compile_model

    def compile_noting(*arguments: Any) -> Any:
        compiled = compile_model(*arguments)
        graphs.append(compiled.get_runtime_model())
        return compiled

    monkeypatch.setattr(library.Core, "compile_model", compile_noting)
    get_backend("openvino").load(make_spec("openvino", precision))
    [graph] = graphs
    weights = {
        node.get_rt_info()["outputPrecisions"].astype(str)
        for node in graph.get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Const" and _is_matrix(node)
    }
    assert weights == {stored}


def _is_matrix(node: Any) -> bool:
    shape = node.get_output_shape(0)
    return len(shape) == 2 and min(shape) > 1
