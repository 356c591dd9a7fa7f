"""Whether this CPU multiplies 8-bit integers exactly."""

import platform
from pathlib import Path

_X86 = {"x86_64", "amd64"}
_EXACT = {"avx512_vnni", "avx_vnni"}


def int8_problem(root: Path = Path("/")) -> str:
    """Say why integer products come out wrong here; "" where they are right.

    Without VNNI, ONNX Runtime's x86 kernels add products of uint8 and int8 in pairs, in 16 bits
    that overflow in silence (its documentation, "Quantize ONNX models", on U8S8). Simulated with
    all-MiniLM-L6-v2, vectors then lie six times as far from the original's as they should in int8.

    Args:
        root: Where `/proc` is.
    """
    if platform.machine().lower() not in _X86 or _EXACT & _flags(root / "proc/cpuinfo"):
        return ""
    return "this CPU has no VNNI, and its int8 products overflow; use openvino or a finer precision"


def _flags(path: Path) -> set[str]:
    """Read the features of the first CPU: "flags : fpu vme" in one line among others."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, words = line.partition(":")
        if key.strip() == "flags":
            return set(words.split())
    return set()
