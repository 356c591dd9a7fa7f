"""From nothing to the first vector: one table, and bars of seconds and of memory."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.records.startup import EngineStart, Start, StartupResult
from benchmarks.reports.markdown import mebibytes, run_line, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADER = (
    "engine", "precision", "extras", "environment on disk", "how", "to the first vector",
    "fastest to slowest", "memory", "of it private",
)  # fmt: skip


def startup_tables(result: StartupResult) -> list[str]:
    """Write one line for each engine over HTTP, and one for it in a script."""
    rounds = len(result.engines[0].server)
    heading = (
        f"**{result.model}**: medians of {rounds} starts, files in memory; from the start of the"
        " process to the vector."
    )
    rows = [
        _row(engine, how, starts)
        for engine in result.engines
        for how, starts in _ways(engine).items()
    ]
    return [
        run_line(result.run, f"{result.num_threads} threads"),
        heading,
        table(_HEADER, rows),
    ]


def draw_startup(result: StartupResult) -> "Figure":
    """Draw seconds to the first vector and memory after it, over HTTP and in a script."""
    from matplotlib.figure import Figure

    names = [_name(engine) for engine in result.engines]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    times, memory = figure.subplots(1, 2)
    for offset, how, color in ((-0.2, "embed-serve", "#4878a8"), (0.2, "`Runtime`", "#3a9a6a")):
        places = [place + offset for place in range(len(names))]
        ways = [_ways(engine)[how] for engine in result.engines]
        seconds = [[start.seconds for start in starts] for starts in ways]
        medians = [*map(statistics.median, seconds)]
        bars = times.bar(places, medians, width=0.4, color=color, label=how.strip("`"))
        times.bar_label(bars, fmt="{:.2f}", fontsize=8, label_type="center", color="white")
        times.vlines(places, [*map(min, seconds)], [*map(max, seconds)], color="black")
        mebi = [_median_bytes([one.resident_bytes for one in starts]) / 2**20 for starts in ways]
        bars = memory.bar(places, mebi, width=0.4, color=color)
        memory.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    times.set_ylabel("seconds to the first vector")
    times.set_title("line: fastest to slowest", fontsize=8)
    times.legend(fontsize=8, frameon=False, loc="upper left")
    memory.set_ylabel("resident memory afterwards, MiB")
    for panel in (times, memory):
        panel.set_xticks(range(len(names)), names)
        panel.margins(y=0.15)
        panel.tick_params(axis="x", labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    title = (
        f"{result.model}, {result.run.machine.cpu}, {result.num_threads} threads, {result.run.date}"
    )
    figure.suptitle(title, fontsize=9)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
    return figure


def _ways(engine: EngineStart) -> dict[str, Sequence[Start]]:
    return {"embed-serve": engine.server, "`Runtime`": engine.offline}


def _name(engine: EngineStart) -> str:
    size = engine.environment_bytes
    environment = "" if size is None else f"\nenvironment {mebibytes(size)}"
    return f"{engine.engine}, {engine.precision}{environment}"


def _median_bytes(values: Sequence[int]) -> int:
    return int(statistics.median(values))


def _row(engine: EngineStart, how: str, starts: Sequence[Start]) -> tuple[str, ...]:
    seconds = [start.seconds for start in starts]
    size = engine.environment_bytes
    return (
        engine.engine,
        engine.precision,
        ", ".join(engine.extras) or "that of the benchmark",
        "-" if size is None else mebibytes(size),
        how,
        f"{statistics.median(seconds):.2f} s",
        f"{min(seconds):.2f} to {max(seconds):.2f} s",
        mebibytes(_median_bytes([start.resident_bytes for start in starts])),
        mebibytes(_median_bytes([start.private_bytes for start in starts])),
    )
