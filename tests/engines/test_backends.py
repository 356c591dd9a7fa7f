"""The registry: which backends there are, what each says of itself, and what it leaves alone."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

from embed_runtime.engines import Availability, backend_names, get_backend
from embed_runtime.engines._library import MAX_MESSAGE_CHARS, one_line
from embed_runtime.errors import BundleError
from embed_runtime.manifest import Dialect
from embed_runtime.types import Precision

LIBRARIES = {
    "onnxruntime": ["onnxruntime"],
    "onnxruntime_cuda": ["onnxruntime"],
    "openvino": ["openvino"],
    "tensorrt": ["tensorrt", "tensorrt_bindings"],
    "tensorrt_rtx": ["tensorrt_rtx", "tensorrt_rtx_bindings"],
}


def test_every_file_of_the_folder_is_a_backend() -> None:
    assert backend_names() == ["dummy", *sorted(LIBRARIES)]


@pytest.mark.parametrize("name", ["", "nope", "os", "..errors", "_cuda", "openvino.BACKEND"])
def test_an_unknown_name_is_looked_up_and_never_imported(name: str) -> None:
    with pytest.raises(BundleError, match="known engines: dummy, onnxruntime, "):
        get_backend(name)


def test_importing_the_registry_loads_no_engine_library() -> None:
    code = (
        "import sys; from embed_runtime.engines import Availability, backend_names, get_backend;"
        "[get_backend(name) for name in backend_names()];"
        "print([one for one in sys.modules if one.partition('.')[0] in"
        " ('onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_missing_library_is_a_reason_that_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in LIBRARIES[name]:
        monkeypatch.setitem(sys.modules, library, None)
    backend = get_backend(name)
    availability = backend.probe()
    assert not availability.can_run
    assert not availability.can_build
    assert availability.producer == ""
    assert availability.reason == (
        f'{LIBRARIES[name][0]} is not installed; pip install "{backend.extra}"'
    )


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_broken_library_is_a_reason_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        raise RuntimeError(f"{module} was built\nfor another numpy")

    monkeypatch.setattr("embed_runtime.engines._library.import_module", fail)
    reason = get_backend(name).probe().reason
    assert reason.startswith(
        f"{LIBRARIES[name][0]} cannot be imported: {LIBRARIES[name][0]} was built for another numpy"
    )


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_probe_answers_in_one_line(name: str) -> None:
    availability = get_backend(name).probe()
    assert "\n" not in availability.reason
    if availability.can_run:
        assert availability.producer.startswith(f"{name.removesuffix('_cuda')} ")


@pytest.mark.parametrize(
    ("name", "precision", "computes", "dialect"),
    [
        ("onnxruntime", "fp32", "fp32", "packed"),
        ("onnxruntime", "fp16", "fp32", "packed"),
        ("onnxruntime", "bf16", "fp32", "packed"),
        ("openvino", "fp32", "fp32", "packed"),
        ("onnxruntime_cuda", "fp32", "fp32", "packed"),
        ("onnxruntime_cuda", "fp16", "fp16", "packed-fp16"),
        ("onnxruntime_cuda", "bf16", "bf16", "packed-bf16"),
        ("onnxruntime_cuda", "int8", None, "packed"),
        *(
            (name, precision, computes, dialect)
            for name in ("tensorrt", "tensorrt_rtx")
            for precision, computes, dialect in (
                ("fp32", "fp32", "packed"),
                ("fp16", "fp16", "packed-fp16"),
                ("bf16", "bf16", "packed-bf16"),
                ("int8", None, "packed"),
            )
        ),
    ],
)
def test_what_a_backend_computes_for_a_bundle(
    name: str, precision: Precision, computes: Precision | None, dialect: Dialect
) -> None:
    backend = get_backend(name)
    assert backend.precision(precision) == computes
    assert backend.dialect(precision) == dialect


@pytest.mark.parametrize(
    ("capabilities", "fp16", "bf16"),
    [
        (["FP32", "INT8"], "fp32", "fp32"),
        (["FP32", "BF16"], "fp32", "bf16"),
        (["FP32", "FP16", "BF16"], "fp16", "bf16"),
    ],
)
def test_openvino_computes_in_16_bits_where_the_cpu_does(
    capabilities: list[str], fp16: Precision, bf16: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def get_property(self, *_: str) -> list[str]:
            return capabilities

    monkeypatch.setattr(import_module("openvino"), "Core", Core)
    precision = get_backend("openvino").precision
    assert (precision("fp16"), precision("bf16"), precision("fp32")) == (fp16, bf16, "fp32")


@pytest.mark.parametrize(
    ("name", "reason", "can_build"),
    [
        ("tensorrt_rtx", "tensorrt_rtx has no kernels for compute capability 9.0", True),
        ("onnxruntime_cuda", "the installed onnxruntime is for the CPU only", False),
    ],
)
def test_a_gpu_alone_is_not_enough(
    name: str, reason: str, can_build: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "tensorrt_rtx":
        pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    monkeypatch.setattr("embed_runtime.engines._cuda.compute_capability", lambda: "9.0")
    monkeypatch.setattr("embed_runtime.engines._cuda.find_problem", lambda: "")
    availability = get_backend(name).probe()
    assert availability.reason.startswith(reason)
    assert availability.can_build == can_build


@pytest.mark.parametrize("problem", ["", "no NVIDIA GPU is visible"])
def test_cuda_needs_the_library_for_it_and_a_gpu(
    problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("onnxruntime")
    library.__dict__.update(
        __version__="1.99.0", get_available_providers=lambda: ["CUDAExecutionProvider"]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    monkeypatch.setattr("embed_runtime.engines._cuda.find_problem", lambda: problem)
    assert get_backend("onnxruntime_cuda").probe() == Availability(
        reason=problem, producer="onnxruntime 1.99.0", can_build=not problem
    )


def test_one_line_is_one_line_of_bearable_length() -> None:
    assert one_line(" a\n b\t\tc ") == "a b c"
    assert one_line("x" * (MAX_MESSAGE_CHARS + 1)) == f"{'x' * MAX_MESSAGE_CHARS}..."
