"""What a number depends on beside the code: processor, libraries, commit."""

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.records.base import Machine

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_LIBRARIES = (
    "embed-runtime", "numpy", "tokenizers", "onnxruntime", "openvino", "torch", "transformers",
    "sentence-transformers",
)  # fmt: skip


def num_physical_cores() -> int:
    """Count the cores; hyper-threads do not count."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def describe_machine() -> Machine:
    """Read what processor, memory and system this is."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = flags[1].split() if flags else []
    return Machine(
        cpu=model[1] if model else platform.machine(),
        num_cores=num_physical_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        features=tuple(feature for feature in _FEATURES if feature in present),
    )


def machine_slug(machine: Machine) -> str:
    """Name a machine for a file: `amd-epyc-2-cores`."""
    words = re.findall(r"[a-z0-9]+", machine.cpu.lower())
    return "-".join([*words, str(machine.num_cores), "cores"])


def library_versions() -> dict[str, str]:
    """List Python and the libraries that compute, as installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def source_commit() -> str:
    """Name the commit that is checked out, with `-dirty` when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
