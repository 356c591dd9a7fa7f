"""Which CPUs may run integer products of ONNX Runtime."""

import platform
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from embed_runtime.engines import LoadSpec, get_backend
from embed_runtime.engines._int8 import int8_problem
from embed_runtime.errors import BundleError

MakeSpec = Callable[..., LoadSpec]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def make(architecture: str, flags: str | None) -> Path:
        monkeypatch.setattr(platform, "machine", lambda: architecture)
        if flags is not None:
            (tmp_path / "proc").mkdir()
            text = f"processor\t: 0\nmodel name\t: CPU\nflags\t\t: {flags}\nbugs\t\t: avx_vnni\n\n"
            (tmp_path / "proc/cpuinfo").write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("architecture", "flags"),
    [
        ("x86_64", "fpu avx2 avx512_vnni"),
        ("AMD64", "fpu avx2 avx_vnni"),
        ("aarch64", None),
    ],
)
def test_exact_products(architecture: str, flags: str | None, machine: Callable[..., Path]) -> None:
    assert int8_problem(machine(architecture, flags)) == ""


@pytest.mark.parametrize("flags", ["fpu avx2 avx512f", "", None])
def test_products_that_overflow(flags: str | None, machine: Callable[..., Path]) -> None:
    assert "VNNI" in int8_problem(machine("x86_64", flags))


def test_onnxruntime_leaves_int8_to_cpus_that_can(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("onnxruntime", "int8")
    backend = get_backend("onnxruntime")
    module = import_module("embed_runtime.engines.onnxruntime")
    monkeypatch.setattr(module, "int8_problem", lambda: "no VNNI")
    assert backend.precision("int8") is None
    assert backend.precision("fp32") == "fp32"
    with pytest.raises(BundleError, match=r"packed-int8\.onnx: no VNNI$"):
        backend.load(spec)


def test_openvino_takes_int8_everywhere() -> None:
    backend = get_backend("openvino")
    assert (backend.precision("int8"), backend.dialect("int8")) == ("int8", "packed")
