"""A new environment with this project and some of its extras, as pip installs them."""

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def make_environment(folder: Path) -> Path:
    """Make an empty environment and return its Python."""
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    return folder / "bin/python"


def install_extras(python: Path, extras: Sequence[str]) -> None:
    """Install this project with extras, at the versions the project pins.

    Raises:
        subprocess.CalledProcessError: pip failed; its message is on stderr.
    """
    command = [
        *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--constraint", str(_ROOT / "constraints.txt"), f"{_ROOT}[{','.join(extras)}]"),
    ]
    subprocess.run(command, check=True)


def size_on_disk(folder: Path) -> int:
    """Add up what the files of a folder take on disk, links left out."""
    block = 512  # What st_blocks counts, whatever the file system's own blocks are.
    return sum(
        path.lstat().st_blocks * block for path in folder.rglob("*") if not path.is_symlink()
    )
