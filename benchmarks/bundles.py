"""This project's bundles of the measured models."""

import logging
import subprocess
import sys
from pathlib import Path

from benchmarks.checkpoints import CACHE
from benchmarks.workloads import Workload
from embed_runtime.bundle import read_manifest
from embed_runtime.errors import BundleError
from embed_runtime.manifest import EngineEntry
from embed_runtime.types import Precision

_LOG = logging.getLogger("benchmarks")


def export_bundle(workload: Workload, precision: Precision) -> Path:
    """Export the workload's model with the engines that run on a CPU, as a user would."""
    bundle = _bundle_path(workload, precision)
    command = [
        sys.executable, "-m", "embed_export.cli", str(workload.checkpoint), "-o", str(bundle),
        f"--{precision}", "--engine", "onnxruntime", "--engine", "openvino",
    ]  # fmt: skip
    _LOG.info("exporting %s in %s", workload.name, precision)
    subprocess.run(command, check=True)
    return bundle


def find_bundle(workload: Workload, precision: Precision, *, export_again: bool) -> Path:
    """Take the bundle that an earlier command exported, or export it."""
    bundle = _bundle_path(workload, precision)
    return bundle if bundle.is_dir() and not export_again else export_bundle(workload, precision)


def choose_engine(bundle: Path, backend: str | None = None) -> EngineEntry:
    """Find the bundle's first engine, or its first of a backend.

    Raises:
        BundleError: It has no engine of this backend.
    """
    engines = read_manifest(bundle).engines
    chosen = next((one for one in engines if backend in (None, one.backend)), None)
    if chosen is None:
        has = ", ".join(one.backend for one in engines)
        raise BundleError(f"{bundle}: no engine {backend}; it has {has}")
    return chosen


def _bundle_path(workload: Workload, precision: Precision) -> Path:
    return CACHE / "bundles" / f"{workload.name}-{precision}"
