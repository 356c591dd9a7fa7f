"""The whole benchmark, small: for its correctness, not for its figures."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.dummy_bundle import write_dummy_bundle
from benchmarks.records.comparison import ComparisonResult
from benchmarks.records.export import ExportResult
from benchmarks.records.scaling import ScalingResult
from benchmarks.results import read_result
from benchmarks.serving import KINDS, Load, measure_serving

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
    result = read_result(path)
    assert isinstance(result, ComparisonResult)
    [workload] = result.workloads
    baseline, ours = workload.measurements
    assert (baseline.name, ours.name) == ("sentence-transformers", "embed-runtime")
    assert baseline.ratio == 1
    assert ours.min_cosine > 0.99999
    assert ours.mean_cosine is not None
    assert ours.min_cosine <= ours.mean_cosine
    assert len(ours.seconds) == 2
    assert ours.latency is not None
    assert 0 < ours.latency.p50_milliseconds <= ours.latency.p99_milliseconds
    assert 25 <= ours.latency.mean_tokens <= 35
    assert ours.startup_seconds is not None
    assert 0 < ours.load_seconds < ours.startup_seconds
    assert ours.peak_memory_bytes > 2**20
    assert workload.ceilings[0].flops_per_second > 0
    assert f"| {ours.name} | {ours.engine} | fp32 |" in run.stdout


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("65", "toy reads at most 64 tokens, not 65"),
        ("short", "'short' is neither 8 or more nor max"),
        ("0", "'0' is neither 8 or more nor max"),
    ],
)
def test_a_length_that_cannot_be_is_refused(length: str, message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "--toy", "--length", length]
    run = subprocess.run(
        [*command, "-o", str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith(message)


@pytest.mark.slow
def test_an_export_is_measured_step_by_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "export", "--workload", "toy"]
    run = subprocess.run(
        [*command, "--precision", "fp32", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    [path] = tmp_path.glob("*.json")
    result = read_result(path)
    assert isinstance(result, ExportResult)
    [export] = result.runs
    assert [step.title for step in export.steps][1:] == [
        "Writing graphs and weights",
        "Running the original model",
        "Building the onnxruntime engine",
        "Proving engines",
        "Opening the bundle",
        "Embedding 24 texts",
    ]
    assert all(step.seconds > 0 for step in export.steps)
    assert all(step.peak_memory_bytes > step.peak_private_bytes > 2**20 for step in export.steps)
    assert export.weights_bytes <= 4 * export.num_parameters + 2**20
    assert "| Proving engines |" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="the load generator wrk is not installed")
def test_a_server_is_measured_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loads = [Load(kind=kind, connections=4, seconds=1) for kind in KINDS]
    measurements = list(measure_serving(write_dummy_bundle(), loads, num_cores=1))
    for load, one in zip(loads, measurements, strict=True):
        assert (one.kind, one.connections, one.failures) == (load.kind, 4, 0)
        assert one.vectors_per_second == one.requests_per_second * load.num_inputs > 0
        assert 0 < one.p50_milliseconds <= one.p99_milliseconds
        assert one.cpu_microseconds_per_vector > 0


@pytest.mark.slow
def test_calls_of_growing_size_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "scaling", "--workload", "toy"]
    options = ["--precision", "fp32", "--max-texts", "100", "-o", str(tmp_path)]
    run = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    [path] = tmp_path.glob("*.json")
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    result = read_result(path)
    assert isinstance(result, ScalingResult)
    assert [step.num_texts for step in result.steps] == [1, 10, 100]
    for step in result.steps:
        # Words are at least a token, and every text has two special ones.
        assert step.num_tokens >= step.num_calls * step.num_texts * (result.words_per_text + 2)
        assert step.vectors_bytes == step.num_texts * 64 * 4
        assert step.peak_memory_bytes > step.vectors_bytes
        assert step.tokens_per_second == step.num_tokens / step.seconds
    assert "| 100 |" in run.stdout
