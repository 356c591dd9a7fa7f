"""The benchmark's own arithmetic, on turns and vectors that need no model."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.commands.storing import describe_run
from benchmarks.compare import min_cosine, run_rounds
from benchmarks.machine import describe_machine, machine_slug
from benchmarks.records.comparison import ComparisonResult
from benchmarks.results import RESULTS, read_result, write_result
from benchmarks.worker import Worker


class Scripted:
    """Takes its turn by writing its name down, and reports the number of the pass."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log

    def run(self) -> float:
        self._log.append(self._name)
        return float(self._log.count(self._name))


class Counter:
    """A subject, opened in a worker's process, that counts its passes."""

    def __init__(self) -> None:
        self._num_passes = 0

    def run(self) -> None:
        self._num_passes += 1

    def outcome(self) -> int:
        return self._num_passes

    def close(self) -> None:
        self._num_passes = 0


def open_nothing() -> Counter:
    raise OSError("nothing to open")


def test_rounds_alternate_and_each_starts_with_the_next() -> None:
    log: list[str] = []
    seconds = run_rounds([Scripted(name, log) for name in "abc"], num_rounds=3)
    assert "".join(log) == "abc" + "abc" + "bca" + "cab"
    assert seconds == [[2.0, 3.0, 4.0]] * 3  # the first pass warmed up


def test_min_cosine_finds_the_worst_row() -> None:
    theirs = np.eye(3, dtype=np.float32)
    ours = theirs.copy()
    ours[1] = [0.8, 0.6, 0.0]
    assert min_cosine(ours, theirs) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="shape"):
        min_cosine(ours[:2], theirs)


def test_a_result_survives_its_file_and_refuses_strangers(tmp_path: Path) -> None:
    result = ComparisonResult(run=describe_run(), num_threads=2, num_rounds=5, workloads=())
    path = tmp_path / "results" / "one.json"
    write_result(path, result)
    assert read_result(path) == result
    path.write_text(path.read_text().replace('"commit"', '"commmit"'))
    with pytest.raises(msgspec.ValidationError, match="commmit"):
        read_result(path)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_stored_result_is_still_read(path: Path) -> None:
    assert path.name.startswith(read_result(path).run.date)


def test_a_machine_has_a_name_fit_for_a_file() -> None:
    machine = describe_machine()
    assert machine.num_cores >= 1
    named = msgspec.structs.replace(machine, cpu="AMD EPYC (TM) 9654", num_cores=2)
    assert machine_slug(named) == "amd-epyc-tm-9654-2-cores"


def test_a_worker_times_passes_and_hands_over_the_outcome() -> None:
    with Worker("counter", Counter) as worker:
        assert worker.load_seconds > 0
        assert all(worker.run() > 0 for _ in range(3))
        num_passes, peak_memory_bytes = worker.finish()
    assert num_passes == 3
    assert peak_memory_bytes > 2**20


def test_a_worker_that_cannot_open_its_subject_is_an_error_with_its_name(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RuntimeError, match="broken stopped"):
        Worker("broken", open_nothing)
    assert "nothing to open" in capfd.readouterr().err
