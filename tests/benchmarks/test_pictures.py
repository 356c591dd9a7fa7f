"""The picture of a stored result: there, drawn from its figures, and written by `docs`."""

import statistics
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from benchmarks import document
from benchmarks.__main__ import main
from benchmarks.commands import docs
from benchmarks.document import newest_results
from benchmarks.records.base import Result
from benchmarks.records.export import ExportResult
from benchmarks.records.serving import ServingResult
from benchmarks.records.startup import StartupResult
from benchmarks.reports.serving import draw_serving
from benchmarks.reports.startup import draw_startup
from benchmarks.results import RESULTS, read_result
from benchmarks.serving import KINDS


def _heights(figure: Figure) -> list[list[float]]:
    """Heights of the bars of each panel."""
    return [
        [
            height
            for bars in panel.containers
            if isinstance(bars, BarContainer)
            for height in np.ravel(cast("ArrayLike", bars.datavalues)).tolist()
        ]
        for panel in figure.axes
    ]


def _newest(kind: type[Result]) -> list[Path]:
    return [path for path in newest_results(RESULTS) if isinstance(read_result(path), kind)]


def test_every_stored_result_but_exports_has_its_picture() -> None:
    pictures = {path.stem for path in RESULTS.glob("*.png")}
    without = [path.stem for path in newest_results(RESULTS) if path.stem not in pictures]
    assert without == [path.stem for path in _newest(ExportResult)], (
        "run: python -m benchmarks docs"
    )


def test_a_start_is_drawn_as_the_medians_of_its_table() -> None:
    [path] = _newest(StartupResult)
    result = read_result(path)
    assert isinstance(result, StartupResult)
    ways = [
        *(engine.server for engine in result.engines),
        *(engine.offline for engine in result.engines),
    ]
    seconds = [statistics.median(one.seconds for one in starts) for starts in ways]
    memory = [statistics.median(one.resident_bytes for one in starts) / 2**20 for starts in ways]
    assert _heights(draw_startup(result)) == [seconds, pytest.approx(memory)]


def test_a_server_without_a_model_is_drawn_against_connections() -> None:
    [path] = _newest(ServingResult)
    result = read_result(path)
    assert isinstance(result, ServingResult)
    expected: list[list[list[float]]] = [[], []]
    for kind in KINDS:
        chosen = [one for one in result.measurements if one.kind == kind]
        expected[0].append([one.vectors_per_second for one in chosen])
        expected[1].append([one.p50_milliseconds for one in chosen])
        expected[1].append([one.p99_milliseconds for one in chosen])
    drawn = [
        [np.ravel(line.get_ydata()).tolist() for line in panel.lines]
        for panel in draw_serving(result).axes
    ]
    assert drawn == expected


def test_docs_draws_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = _newest(StartupResult)
    stored = tmp_path / path.name
    stored.write_bytes(path.read_bytes())
    monkeypatch.setattr(docs, "RESULTS", tmp_path)
    main(["docs", "-o", str(tmp_path / document.DOCUMENT.name)])
    picture = stored.with_suffix(".png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert f"(results/{picture.name})" in (tmp_path / document.DOCUMENT.name).read_text()
