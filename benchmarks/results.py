"""`results/<date>-<what>-<machine>.json`: results of every kind, as files."""

from pathlib import Path
from typing import TypeAlias

import msgspec

from benchmarks.machine import machine_slug
from benchmarks.records.base import Result
from benchmarks.records.comparison import ComparisonResult
from benchmarks.records.export import ExportResult
from benchmarks.records.http import HttpResult
from benchmarks.records.mix import MixResult
from benchmarks.records.scaling import ScalingResult
from benchmarks.records.serving import ServingResult
from benchmarks.records.startup import StartupResult

AnyResult: TypeAlias = (
    ComparisonResult
    | ExportResult
    | HttpResult
    | MixResult
    | ScalingResult
    | ServingResult
    | StartupResult
)

RESULTS = Path(__file__).parent / "results"


def result_path(folder: Path, result: Result, *words: str) -> Path:
    """Name the file of a result: its date, what was measured, and the machine."""
    name = "-".join([result.run.date, *words, machine_slug(result.run.machine)])
    return folder / f"{name}.json"


def write_result(path: Path, result: Result) -> None:
    """Write a result as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def read_result(path: Path) -> AnyResult:
    """Read a result of any kind; unknown keys and missing ones are errors."""
    result: AnyResult = msgspec.json.decode(path.read_bytes(), type=AnyResult)
    return result
