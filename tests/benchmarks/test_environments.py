"""Other systems' environments: what is missing is said, what is stale does not count."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.contestants import missing_environments
from benchmarks.environments import ENVIRONMENTS, find_interpreter
from benchmarks.systems import PEERS

ROOT = Path(__file__).parents[2]


def test_every_system_elsewhere_has_requirements_with_every_version_pinned() -> None:
    named = {name for peer in PEERS for name in (peer.environment, peer.converter) if name}
    assert named == set(ENVIRONMENTS)
    for name in ENVIRONMENTS:
        lines = (ROOT / f"benchmarks/environments/{name}.txt").read_text().splitlines()
        assert lines
        assert all("==" in line for line in lines), name


def test_an_environment_counts_while_its_requirements_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "CACHE", tmp_path)
    fastembed = next(peer for peer in PEERS if peer.name == "fastembed")
    assert find_interpreter("fastembed") is None
    assert missing_environments(fastembed) == ["fastembed", "sentence-transformers-onnx"]
    folder = tmp_path / "environments/fastembed"
    folder.mkdir(parents=True)
    wanted = (ROOT / "benchmarks/environments/fastembed.txt").read_text()
    (folder / "fastembed.txt").write_text(wanted)
    assert find_interpreter("fastembed") == folder / "bin/python"
    assert missing_environments(fastembed) == ["sentence-transformers-onnx"]
    (folder / "fastembed.txt").write_text(wanted.replace("==", "==0."))
    assert find_interpreter("fastembed") is None


def test_setup_names_the_environments_there_are() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "setup", "fastembd"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 2
    assert "fastembd" in run.stderr
    assert all(name in run.stderr for name in ENVIRONMENTS)
