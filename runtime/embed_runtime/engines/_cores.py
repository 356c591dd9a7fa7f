"""How many threads pay off on this machine: physical cores that this process may really use."""

import os
from collections.abc import Iterator
from pathlib import Path


def num_usable_cores(root: Path = Path("/")) -> int:
    """Count physical cores inside this process's CPU set and its control group's quota.

    Engine libraries count the cores of the whole machine, which in a container with a quota means
    dozens of threads on two cores' time.

    Args:
        root: Where `/sys` and `/proc` are.
    """
    cores = {_siblings(root, cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min([len(cores), *_quotas(root)]))


def _siblings(root: Path, cpu: int) -> str:
    """Name the physical core of a CPU by all the CPUs it has."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    return _read(path) or str(cpu)


def _quotas(root: Path) -> Iterator[int]:
    """Yield the whole cores that this process's control group, and each one above it, may use.

    The format is cgroup v2's: "0::/path" in `/proc/self/cgroup`, "quota period" or "max period" in
    `cpu.max`.
    """
    top = root / "sys/fs/cgroup"
    own = _read(root / "proc/self/cgroup").rpartition("0::/")[2]
    for group in (top / own, *(top / own).parents):
        if not group.is_relative_to(top):
            return
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            # Rounded down: one thread too many stalls them all until the next period.
            yield int(quota) // int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
