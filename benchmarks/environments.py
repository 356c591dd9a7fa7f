"""The virtual environments of other systems: what each needs, and where its Python is."""

import shutil
import subprocess
import venv
from pathlib import Path

from benchmarks.checkpoints import CACHE

_REQUIREMENTS = Path(__file__).with_name("environments")
ENVIRONMENTS = tuple(sorted(path.stem for path in _REQUIREMENTS.glob("*.txt")))


def setup_environment(name: str) -> Path:
    """Make the environment of one system, or find the one made before from the same file.

    The file pins every package, so nothing is resolved: what one of them could also use, like
    torchvision, stays out.

    Returns:
        Its Python.

    Raises:
        subprocess.CalledProcessError: pip failed; its message is on stderr.
    """
    if (python := find_interpreter(name)) is not None:
        return python
    folder = _folder(name)
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    python, requirements = folder / "bin/python", _REQUIREMENTS / f"{name}.txt"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--no-deps", "--requirement", str(requirements)],
        check=True,
    )
    shutil.copyfile(requirements, folder / requirements.name)
    return python


def find_interpreter(name: str) -> Path | None:
    """Find the Python of an environment; None where `python -m benchmarks setup` has not run.

    An environment made from an older file of requirements does not count.
    """
    installed = _folder(name) / f"{name}.txt"
    wanted = _REQUIREMENTS / installed.name
    if installed.is_file() and installed.read_bytes() == wanted.read_bytes():
        return _folder(name) / "bin/python"
    return None


def _folder(name: str) -> Path:
    return CACHE / "environments" / name
