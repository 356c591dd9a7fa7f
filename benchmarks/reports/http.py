"""Servers side by side: one table for many connections, one for a single one."""

import statistics
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from benchmarks.records.http import HttpResult, HttpSystem
from benchmarks.records.load import LoadFigures
from benchmarks.reports.markdown import mebibytes, run_line, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

_NOT_MEASURED = "-"


def http_tables(result: HttpResult) -> list[str]:
    """Write both tables; figures are medians over the rounds."""
    texts, first = result.texts, result.systems[0]
    where = run_line(result.run, f"{result.num_threads} threads, the load generator on the same")
    heading = (
        f"**{result.model}**: one text of {texts.mean:.0f} tokens in a request, {texts.num_texts}"
        f" different ones, answers in base64; medians of {len(first.many)} rounds of"
        f" {first.many[0].seconds:.0f} s."
    )
    return [where, heading, _many_table(result), "One connection:", _one_table(result)]


def draw_http(result: HttpResult) -> "Figure":
    """Draw requests a second against what the engine does without a server, and both times."""
    from matplotlib.figure import Figure

    systems = result.systems
    names = [f"{one.name}\n{one.precision}" for one in systems]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rates, times = figure.subplots(1, 2)
    bars = rates.bar(names, [_rate(one) for one in systems], color="#4878a8")
    rates.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    for place, one in enumerate(systems):
        if one.alone:
            rates.hlines(_offline(one), place - 0.45, place + 0.45, color="#c03a3a")
    rates.set_ylabel(f"requests/s, {systems[0].many[0].connections} connections")
    rates.set_title("line: the same texts in one call, without a server", fontsize=8)
    percentiles = {
        "p50": [_p50(one.many) for one in systems],
        "p99": [_p99(one.many) for one in systems],
    }
    for offset, (label, milliseconds) in zip((-0.2, 0.2), percentiles.items(), strict=True):
        places = [place + offset for place in range(len(systems))]
        bars = times.bar(places, milliseconds, width=0.4, label=label)
        times.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    times.set_xticks(range(len(systems)), names)
    times.set_ylabel("milliseconds of a request")
    times.legend(frameon=False)
    for panel in (rates, times):
        panel.margins(y=0.15)
        panel.tick_params(axis="x", labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    title = (
        f"{result.model}, {result.run.machine.cpu}, {result.num_threads} threads, {result.run.date}"
    )
    figure.suptitle(title, fontsize=9)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
    return figure


def _median(values: Iterable[T], value: Callable[[T], float]) -> float:
    """Take the median over the rounds."""
    return statistics.median(map(value, values))


def _rate(system: HttpSystem) -> float:
    return _median(system.many, lambda load: load.requests_per_second)


def _offline(system: HttpSystem) -> float:
    return _median(system.alone, lambda alone: alone.texts_per_second)


def _p50(loads: Iterable[LoadFigures]) -> float:
    return _median(loads, lambda load: load.p50_milliseconds)


def _p99(loads: Iterable[LoadFigures]) -> float:
    return _median(loads, lambda load: load.p99_milliseconds)


def _many_table(result: HttpResult) -> str:
    peer = next((one for one in result.systems if not one.alone), None)
    num_connections = result.systems[0].many[0].connections
    header = (
        "system", "engine", "precision", f"requests/s, {num_connections} connections",
        "offline texts/s", "share of offline",
        f"times {peer.name} {peer.precision}" if peer else "times a peer", "p50", "p99",
        "p99, times p50", "memory", "failures",
    )  # fmt: skip
    return table(header, [_many_row(one, peer) for one in result.systems])


def _many_row(one: HttpSystem, peer: HttpSystem | None) -> tuple[str, ...]:
    p50, p99 = _p50(one.many), _p99(one.many)
    shares = [
        load.requests_per_second / alone.texts_per_second
        for load, alone in zip(one.many, one.alone, strict=False)
    ]
    return (
        one.name,
        one.engine,
        one.precision,
        f"{_rate(one):,.0f}",
        f"{_offline(one):,.0f}" if one.alone else _NOT_MEASURED,
        f"{statistics.median(shares):.0%}" if shares else _NOT_MEASURED,
        f"{_rate(one) / _rate(peer):.1f}" if peer else _NOT_MEASURED,
        f"{p50:,.1f} ms",
        f"{p99:,.1f} ms",
        f"{p99 / p50:.1f}",
        mebibytes(one.memory_bytes),
        str(sum(load.failures for load in (*one.many, *one.one))),
    )


def _one_table(result: HttpResult) -> str:
    header = (
        "system", "engine", "precision", "requests/s", "p50", "p99", "engine alone",
        "`Runtime.embed`", "from its result cache", "p50 above the engine",
    )  # fmt: skip
    return table(header, map(_one_row, result.systems))


def _one_row(one: HttpSystem) -> tuple[str, ...]:
    engine = embed = cached = above = _NOT_MEASURED
    if one.alone:
        # Of one round, because the machine is not as fast in the next one.
        rounds = zip(one.one, one.alone, strict=True)
        extra = [load.p50_milliseconds - alone.engine_milliseconds for load, alone in rounds]
        above = f"{statistics.median(extra):,.2f} ms"
        engine = f"{_median(one.alone, lambda alone: alone.engine_milliseconds):,.2f} ms"
        embed = f"{_median(one.alone, lambda alone: alone.embed_milliseconds):,.2f} ms"
        cached = f"{_median(one.alone, lambda alone: alone.cached_milliseconds):,.2f} ms"
    return (
        one.name,
        one.engine,
        one.precision,
        f"{_median(one.one, lambda load: load.requests_per_second):,.0f}",
        f"{_p50(one.one):,.2f} ms",
        f"{_p99(one.one):,.2f} ms",
        engine,
        embed,
        cached,
        above,
    )
