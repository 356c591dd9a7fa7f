"""What an export frees goes back to the system."""

import subprocess
import sys

# In a process of its own: the setting is for the whole process, and lasts.
MEASURE = """
import sys
from pathlib import Path

import numpy as np

from embed_export.memory import return_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "returned":
    return_large_blocks()
np.ones(24 << 17)  # freed: from now on glibc takes blocks of this size from its heap
blocks = [np.ones(12 << 17) for _ in range(20)]
pin = [np.ones(1000) for _ in range(100)]
before = resident()
del blocks
print((before - resident()) >> 20)
"""


def _freed_mebibytes(way: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, way], check=True, capture_output=True, text=True
    )
    return int(run.stdout)


def test_large_blocks_are_given_back() -> None:
    returned = _freed_mebibytes("returned")
    assert returned > 200
    assert returned > _freed_mebibytes("kept") + 100
