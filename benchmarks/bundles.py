"""This project's bundles of the measured models."""

import logging
import subprocess
import sys
from pathlib import Path

from benchmarks.checkpoints import CACHE
from benchmarks.workloads import Workload
from embed_runtime.types import Precision

_LOG = logging.getLogger("benchmarks")


def export_bundle(workload: Workload, precision: Precision) -> Path:
    """Export the workload's model with the engines that run on a CPU, as a user would."""
    bundle = CACHE / "bundles" / f"{workload.name}-{precision}"
    command = [
        sys.executable, "-m", "embed_export.cli", str(workload.checkpoint), "-o", str(bundle),
        f"--{precision}", "--engine", "onnxruntime", "--engine", "openvino",
    ]  # fmt: skip
    _LOG.info("exporting %s in %s", workload.name, precision)
    subprocess.run(command, check=True)
    return bundle
