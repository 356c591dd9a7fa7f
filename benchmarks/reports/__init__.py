"""A stored result as tables in Markdown and as a picture: one file for each kind."""

from pathlib import Path
from typing import assert_never

from benchmarks.records.comparison import ComparisonResult
from benchmarks.records.export import ExportResult
from benchmarks.records.http import HttpResult
from benchmarks.records.mix import MixResult
from benchmarks.records.scaling import ScalingResult
from benchmarks.records.serving import ServingResult
from benchmarks.records.startup import StartupResult
from benchmarks.reports.comparison import comparison_tables, draw_comparison
from benchmarks.reports.export import export_tables
from benchmarks.reports.http import draw_http, http_tables
from benchmarks.reports.mix import draw_mix, mix_tables
from benchmarks.reports.scaling import draw_scaling, scaling_tables
from benchmarks.reports.serving import draw_serving, serving_tables
from benchmarks.reports.startup import draw_startup, startup_tables
from benchmarks.results import AnyResult


def to_markdown(result: AnyResult) -> str:
    """Write a result as tables, under a line that says where it ran."""
    match result:
        case ComparisonResult():
            blocks = comparison_tables(result)
        case ExportResult():
            blocks = export_tables(result)
        case HttpResult():
            blocks = http_tables(result)
        case MixResult():
            blocks = mix_tables(result)
        case ScalingResult():
            blocks = scaling_tables(result)
        case ServingResult():
            blocks = serving_tables(result)
        case StartupResult():
            blocks = startup_tables(result)
        case _:
            assert_never(result)
    return "\n\n".join(blocks) + "\n"


def save_plot(result: AnyResult, path: Path) -> bool:
    """Draw a result as PNG.

    Returns:
        Whether this kind of result has a picture.
    """
    match result:
        case ComparisonResult():
            figure = draw_comparison(result)
        case HttpResult():
            figure = draw_http(result)
        case MixResult():
            figure = draw_mix(result)
        case ScalingResult():
            figure = draw_scaling(result)
        case ServingResult():
            figure = draw_serving(result)
        case StartupResult():
            figure = draw_startup(result)
        case ExportResult():
            return False
        case _:
            assert_never(result)
    figure.savefig(path, dpi=150)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
    return True
