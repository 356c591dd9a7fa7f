"""`make demo`: whole, with the real model, and what it says when a step fails."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embed_server import demo


def test_the_nearest_neighbour_is_another_row() -> None:
    similarities = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]], np.float32)
    assert demo.nearest_neighbours(similarities) == [2, 0, 0]


def test_a_server_that_ends_at_once_fails_the_demo_and_shows_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(demo.DemoError, match="ended at once with exit code 2"),
        demo.serve(tmp_path / "no-bundle"),
    ):
        pytest.fail("served a bundle that is not there")
    assert "no-bundle" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_runs_from_checkpoint_to_neighbours(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "embed_server.demo", "-o", str(tmp_path / "all-MiniLM-L6-v2")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "12 vectors of 384" in run.stdout
    assert "12 of 12 have their nearest neighbour in their own topic" in run.stdout
    assert "server stopped cleanly" in run.stdout
