"""This project's bundles of the measured models."""

import hashlib
import logging
import subprocess
import sys
from functools import cache
from pathlib import Path

import embed_export
from benchmarks.checkpoints import CACHE
from benchmarks.workloads import Workload
from embed_runtime.bundle import read_manifest
from embed_runtime.errors import BundleError
from embed_runtime.manifest import EngineEntry
from embed_runtime.types import Precision

_LOG = logging.getLogger("benchmarks")

_ENGINES = ("--engine", "onnxruntime", "--engine", "openvino")


def export_bundle(workload: Workload, precision: Precision) -> Path:
    """Export the workload's model with the engines that run on a CPU, as a user would."""
    bundle = _bundle_path(workload, precision)
    command = [
        sys.executable, "-m", "embed_export.cli", str(workload.checkpoint), "-o", str(bundle),
        f"--{precision}", *_ENGINES,
    ]  # fmt: skip
    _LOG.info("exporting %s in %s", workload.name, precision)
    subprocess.run(command, check=True)
    _exporter_path(bundle).write_text(_exporter())
    return bundle


def find_bundle(workload: Workload, precision: Precision, *, export_again: bool) -> Path:
    """Take the bundle that an earlier command exported, if with the same code, or export it."""
    bundle = _bundle_path(workload, precision)
    if export_again or not bundle.is_dir():
        return export_bundle(workload, precision)
    path = _exporter_path(bundle)
    if path.exists() and path.read_text() == _exporter():
        return bundle
    _LOG.info("%s: another version of the exporter wrote it, so it is replaced", bundle)
    return export_bundle(workload, precision)


def digest_sources(folder: Path) -> str:
    """Hash the Python files in a folder and below it, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{path.read_text()}\n".encode())
    return digest.hexdigest()


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


def _exporter_path(bundle: Path) -> Path:
    """Name the file that says what exported a bundle; it lies beside the bundle."""
    return bundle.with_name(f"{bundle.name}.exporter")


@cache
def _exporter() -> str:
    """Say what exports: the code as this process found it first, and the engines it is asked for.

    Of the runtime nothing counts: it runs the same graphs, and changes every day.
    """
    return " ".join([digest_sources(Path(embed_export.__file__).parent), *_ENGINES])
