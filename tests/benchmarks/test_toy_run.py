"""The whole benchmark, small: for its correctness, not for its figures."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results import read_result

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_toy_benchmark_measures_stores_and_reports(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "--toy", "--rounds", "2", "-o"]
    run = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    [path] = tmp_path.glob("*.json")
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    [workload] = read_result(path).workloads
    baseline, ours = workload.measurements
    assert (baseline.name, ours.name) == ("sentence-transformers", "embed-runtime")
    assert baseline.ratio == 1
    assert ours.min_cosine > 0.99999
    assert len(ours.seconds) == 2
    assert ours.peak_memory_bytes > 2**20
    assert workload.ceilings[0].flops_per_second > 0
    assert f"| {ours.name} | {ours.engine} | fp32 |" in run.stdout
