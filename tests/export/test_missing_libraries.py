"""`embed-export` where the libraries of its extra are not installed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("arguments", [["--list"], ["some-model"]])
def test_a_missing_library_is_one_line(arguments: list[str]) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None;"
        " from embed_export.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert 'pip install "embed-runtime[export]"' in done.stderr
