"""Bundles are kept from one command to the next, as long as the exporter is the same."""

import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias, cast

import pytest

from benchmarks import bundles
from benchmarks.bundles import digest_sources, find_bundle
from benchmarks.workloads import Workload

Find: TypeAlias = Callable[..., int]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Finds a model's bundle; gives how often an exporter has run so far."""
    exports: list[Path] = []

    def export(command: Sequence[str], *, check: bool) -> None:
        assert check
        folder = Path(command[command.index("-o") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        exports.append(folder)

    monkeypatch.setattr(bundles, "CACHE", tmp_path)
    monkeypatch.setattr(subprocess, "run", export)
    workload = cast("Workload", SimpleNamespace(name="toy", checkpoint=tmp_path / "checkpoint"))

    def find(*, export_again: bool = False) -> int:
        assert find_bundle(workload, "fp32", export_again=export_again).is_dir()
        return len(exports)

    return find


def test_a_bundle_is_kept_until_the_exporter_changes(
    find: Find, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert [find(), find()] == [1, 1]
    assert "another version" not in caplog.text
    monkeypatch.setattr(bundles, "_exporter", lambda: "of tomorrow")
    assert [find(), find()] == [2, 2]
    assert caplog.text.count("toy-fp32: another version of the exporter wrote it") == 1
    assert find(export_again=True) == 3


def test_a_bundle_that_does_not_say_what_wrote_it_is_replaced_once(
    find: Find, tmp_path: Path
) -> None:
    (tmp_path / "bundles" / "toy-fp32").mkdir(parents=True)
    assert [find(), find()] == [1, 1]


def test_a_failing_export_is_tried_again(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find() == 1
    monkeypatch.setattr(bundles, "_exporter", lambda: "of tomorrow")
    whole = subprocess.run

    def fail(command: Sequence[str], **_: object) -> None:
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(subprocess.CalledProcessError):
        find()
    monkeypatch.setattr(subprocess, "run", whole)
    assert find() == 2


def test_sources_are_told_apart_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    source = tmp_path / "recipes" / "bert.py"
    source.write_text("RECIPE = 1\n")
    digests = [digest_sources(tmp_path)]
    (tmp_path / "notes.txt").write_text("no code")
    source.touch()
    assert digest_sources(tmp_path) == digests[0]
    source.write_text("RECIPE = 2\n")
    digests.append(digest_sources(tmp_path))
    source.rename(source.with_name("roberta.py"))
    digests.append(digest_sources(tmp_path))
    assert len({*digests}) == 3
