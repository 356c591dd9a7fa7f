"""The benchmark's own arithmetic, on turns and vectors that need no model."""

import venv
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.commands.storing import describe_run
from benchmarks.compare import run_rounds
from benchmarks.figures import cosines
from benchmarks.machine import describe_machine, machine_slug
from benchmarks.records.comparison import ComparisonResult
from benchmarks.results import RESULTS, read_result, write_result
from benchmarks.worker import Worker

# A subject of the standard library alone, as any environment can open it.
COUNTER = """
class Counter:
    def __init__(self, *, start):
        self.count = start

    def add(self, *, number):
        print("what a library prints is no answer")
        self.count += number
        return {"count": self.count}

    def close(self):
        pass
"""


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the module of a subject where a child finds it."""
    (tmp_path / "counting.py").write_text(COUNTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "counting:Counter"


def test_rounds_alternate_and_each_starts_with_the_next() -> None:
    log: list[str] = []

    def turn(name: str) -> Callable[[], int]:
        def take() -> int:
            log.append(name)
            return log.count(name)

        return take

    given = run_rounds([turn(name) for name in "abc"], num_rounds=3)
    assert "".join(log) == "abc" + "abc" + "bca" + "cab"
    assert given == [[2, 3, 4]] * 3  # the first turn warmed up


def test_cosines_are_of_rows_and_do_not_need_unit_length() -> None:
    theirs = np.eye(3, dtype=np.float32)
    ours = theirs.copy()
    ours[1] = [0.8, 0.6, 0.0]
    ours[2] *= 7
    assert cosines(ours, theirs) == pytest.approx([1, 0.6, 1])
    with pytest.raises(ValueError, match="shape"):
        cosines(ours[:2], theirs)


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


def test_a_worker_calls_a_subject_and_tells_its_time_and_memory(counter: str) -> None:
    with Worker("counter", counter, {"start": 5}) as worker:
        assert 0 < worker.load_seconds < worker.age_seconds
        first, second = (worker.call("add", number=2) for _ in range(2))
        peak_memory_bytes = worker.peak_memory_bytes()
    assert [first.result, second.result] == [{"count": 7}, {"count": 9}]
    assert first.seconds > 0
    assert peak_memory_bytes > 2**20


def test_a_worker_runs_in_an_environment_that_has_no_library(counter: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare/bin/python"
    with Worker("counter", counter, {"start": 0}, interpreter=python) as worker:
        assert worker.call("add", number=1).result == {"count": 1}


def test_a_worker_that_stops_is_an_error_with_its_name(
    counter: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="broken stopped"):
        Worker("broken", counter, {"end": 5})
    assert "unexpected keyword argument 'end'" in capfd.readouterr().err
    with (
        Worker("broken", counter, {"start": 5}) as worker,
        pytest.raises(RuntimeError, match="broken stopped"),
    ):
        worker.call("add", number="two")
