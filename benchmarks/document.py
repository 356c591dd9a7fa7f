"""RESULTS.md: the newest stored result of each kind, workload and machine."""

from pathlib import Path

from benchmarks.records.base import Result
from benchmarks.records.comparison import ComparisonResult
from benchmarks.records.export import ExportResult
from benchmarks.records.http import HttpResult
from benchmarks.records.mix import MixResult
from benchmarks.records.scaling import ScalingResult
from benchmarks.records.serving import ServingResult
from benchmarks.records.startup import StartupResult
from benchmarks.reports import to_markdown
from benchmarks.results import AnyResult, read_result

DOCUMENT = Path(__file__).with_name("RESULTS.md")

_HEAD = """# Results

The newest stored result of each kind, workload and machine, as `python -m benchmarks docs` writes
it from `results/`. [README.md](README.md) says how each is measured, [LOG.md](LOG.md) what was
tried.
"""
_SECTIONS: dict[type[Result], str] = {
    ComparisonResult: "Offline",
    ScalingResult: "Cost against the number of texts",
    HttpResult: "Over HTTP",
    MixResult: "Queries beside documents in bulk",
    StartupResult: "From nothing to the first vector",
    ServingResult: "A server without a model",
    ExportResult: "Exports",
}


def write_document(folder: Path) -> str:
    """Write the newest results of a folder, one section for each kind there is."""
    results = {path: read_result(path) for path in newest_results(folder)}
    blocks = [_HEAD]
    for kind, title in _SECTIONS.items():
        chosen = {path: one for path, one in results.items() if isinstance(one, kind)}
        if chosen:
            blocks.append(f"## {title}\n")
            blocks += [_block(path, one) for path, one in chosen.items()]
    return "\n".join(blocks)


def newest_results(folder: Path) -> list[Path]:
    """List the newest of those files whose names differ in nothing but the date."""
    date_length = len("2026-01-31-")
    newest = {path.name[date_length:]: path for path in sorted(folder.glob("*.json"))}
    return [newest[name] for name in sorted(newest)]


def _block(path: Path, result: AnyResult) -> str:
    picture = path.with_suffix(".png")
    shown = f"![{path.stem}](results/{picture.name})\n\n" if picture.exists() else ""
    return f"{shown}{to_markdown(result)}\nStored: [{path.name}](results/{path.name})\n"
