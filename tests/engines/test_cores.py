"""How many threads an engine gets by default."""

import os
from pathlib import Path

import pytest

from embed_runtime.engines._cores import num_usable_cores


def own_cpus(monkeypatch: pytest.MonkeyPatch, *cpus: int) -> None:
    def affinity(_: int) -> set[int]:
        return set(cpus)

    monkeypatch.setattr(os, "sched_getaffinity", affinity)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four cores with two CPUs each, all of them this process's."""
    for cpu in range(8):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    own_cpus(monkeypatch, *range(8))
    return tmp_path


def set_quota(machine: Path, group: str, quota: str) -> None:
    folder = machine / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota}\n")


def enter_group(machine: Path, group: str) -> None:
    (machine / "proc/self").mkdir(parents=True)
    (machine / "proc/self/cgroup").write_text(f"0::/{group}\n")


def test_two_cpus_of_a_core_count_once(machine: Path) -> None:
    assert num_usable_cores(machine) == 4


def test_cpus_of_others_do_not_count(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cpus(monkeypatch, 0, 1, 4)
    assert num_usable_cores(machine) == 2


def test_an_unknown_topology_counts_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cpus(monkeypatch, 2, 3, 5)
    assert num_usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000", 2),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("1600000 100000", 4),
        ("max 100000", 4),
        ("nonsense", 4),
        ("100000 0", 4),
    ],
)
def test_a_quota_counts_in_whole_cores(machine: Path, quota: str, cores: int) -> None:
    enter_group(machine, "")
    set_quota(machine, "", quota)
    assert num_usable_cores(machine) == cores


def test_the_quota_of_a_group_above_counts_too(machine: Path) -> None:
    enter_group(machine, "pods/one")
    set_quota(machine, "pods/one", "300000 100000")
    assert num_usable_cores(machine) == 3
    set_quota(machine, "pods", "100000 100000")
    assert num_usable_cores(machine) == 1


def test_this_machine_has_cores() -> None:
    assert 1 <= num_usable_cores() <= len(os.sched_getaffinity(0))
