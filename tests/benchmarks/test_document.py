"""RESULTS.md: what the stored results say, and nothing else."""

from pathlib import Path

from benchmarks.document import DOCUMENT, newest_results, write_document
from benchmarks.results import RESULTS


def test_the_document_is_what_the_command_writes_from_the_stored_results() -> None:
    assert DOCUMENT.read_text() == write_document(RESULTS), "run: python -m benchmarks docs"


def test_only_the_newest_of_results_that_differ_in_the_date_counts(tmp_path: Path) -> None:
    for name in (
        "2026-11-24-http-a-cpu.json",
        "2026-12-01-http-a-cpu.json",
        "2026-11-30-http-b-cpu.json",
        "2026-11-25-a-cpu.json",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in newest_results(tmp_path)] == [
        "2026-11-25-a-cpu.json",
        "2026-12-01-http-a-cpu.json",
        "2026-11-30-http-b-cpu.json",
    ]
