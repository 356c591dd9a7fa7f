"""A server without a model under load: one table, and curves of rates and of times."""

from typing import TYPE_CHECKING

from benchmarks.records.serving import ServingMeasurement, ServingResult
from benchmarks.reports.markdown import mebibytes, run_line, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#4878a8", "#3a9a6a", "#c0803a")
_HEADER = (
    "request", "connections", "requests/s", "vectors/s", "p50", "p99", "CPU per vector", "memory",
    "failures",
)  # fmt: skip


def serving_tables(result: ServingResult) -> list[str]:
    """Write a server's figures as one table."""
    return [
        run_line(result.run, "server and load generator on a core each"),
        table(_HEADER, map(_row, result.measurements)),
    ]


def draw_serving(result: ServingResult) -> "Figure":
    """Draw vectors a second and times of a request against connections."""
    from matplotlib.figure import Figure

    kinds = dict.fromkeys(one.kind for one in result.measurements)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rates, times = figure.subplots(1, 2)
    for kind, color in zip(kinds, _COLORS, strict=True):
        chosen = [one for one in result.measurements if one.kind == kind]
        loads = [one.connections for one in chosen]
        rates.plot(loads, [one.vectors_per_second for one in chosen], "o-", color=color, label=kind)
        times.plot(loads, [one.p50_milliseconds for one in chosen], "o-", color=color)
        times.plot(loads, [one.p99_milliseconds for one in chosen], "o--", color=color)
    rates.set_ylabel("vectors/s")
    rates.set_ylim(bottom=0)
    figure.legend(  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
        fontsize=8, frameon=False, title="in a request", loc="outside right upper"
    )
    times.set_ylabel("milliseconds of a request")
    times.set_yscale("log")
    times.set_title("solid: p50, dashed: p99", fontsize=8)
    loads = sorted({one.connections for one in result.measurements})
    for panel in (rates, times):
        panel.set_xscale("log")
        panel.set_xticks(loads, [*map(str, loads)], minor=False)
        panel.set_xticks([], minor=True)
        panel.set_xlabel("connections")
        panel.spines[["top", "right"]].set_visible(False)
    title = f"embed-serve without a model, {result.run.machine.cpu}, one core, {result.run.date}"
    figure.suptitle(title, fontsize=9)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
    return figure


def _row(one: ServingMeasurement) -> tuple[str, ...]:
    return (
        one.kind,
        str(one.connections),
        f"{one.requests_per_second:,.0f}",
        f"{one.vectors_per_second:,.0f}",
        f"{one.p50_milliseconds:,.1f} ms",
        f"{one.p99_milliseconds:,.1f} ms",
        f"{one.cpu_microseconds_per_vector:,.0f} us",
        mebibytes(one.memory_bytes),
        str(one.failures),
    )
