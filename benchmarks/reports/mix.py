"""Queries beside documents in bulk: a table of rounds, and each stream alone and beside."""

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.records.mix import MixResult, MixRound
from benchmarks.reports.markdown import mebibytes, run_line, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADER = (
    "round", "query p50 idle", "p99 idle", "p50 under bulk", "p99 under bulk", "p99, times idle",
    "bulk alone", "bulk with queries", "share", "queries/s beside", "failures",
)  # fmt: skip


def mix_tables(result: MixResult) -> list[str]:
    """Write one line per round."""
    heading = (
        f"**{result.model}** in {result.precision} ({result.engine}): one query of"
        f" {result.tokens_per_query:.0f} tokens at a time, {result.pause_milliseconds} ms after the"
        f" last answer; {result.documents_per_request} documents"
        f" of {result.tokens_per_document:.0f} tokens in a request,"
        f" {result.rounds[0].bulk.connections} requests at a time; {mebibytes(result.memory_bytes)}"
        " afterwards."
    )
    where = run_line(result.run, f"{result.num_threads} threads, the load generator on the same")
    rows = [_row(result, number, one) for number, one in enumerate(result.rounds, start=1)]
    return [where, heading, table(_HEADER, rows)]


def draw_mix(result: MixResult) -> "Figure":
    """Draw the times of a query and the rate of the bulk, alone and beside each other."""
    from matplotlib.figure import Figure

    def median(value: Callable[[MixRound], float]) -> float:
        return statistics.median(map(value, result.rounds))

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    times, rates = figure.subplots(1, 2)
    bars = times.bar(
        ["p50\nidle", "p99\nidle", "p50\nunder bulk", "p99\nunder bulk"],
        [
            median(lambda one: one.queries_alone.p50_milliseconds),
            median(lambda one: one.queries_alone.p99_milliseconds),
            median(lambda one: one.queries.p50_milliseconds),
            median(lambda one: one.queries.p99_milliseconds),
        ],
        color=["#9ab8d4", "#4878a8"] * 2,
    )
    times.bar_label(bars, fmt="{:,.1f}", fontsize=8)
    times.set_ylabel("milliseconds of a query")
    bars = rates.bar(
        ["alone", "with queries"],
        [
            median(lambda one: bulk_tokens_per_second(result, one, alone=True)),
            median(lambda one: bulk_tokens_per_second(result, one, alone=False)),
        ],
        color="#3a9a6a",
    )
    rates.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    rates.set_ylabel("bulk, tokens/s")
    for panel in (times, rates):
        panel.margins(y=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    title = (
        f"{result.model} {result.precision}, {result.run.machine.cpu},"
        f" {result.num_threads} threads, {result.run.date}"
    )
    figure.suptitle(title, fontsize=9)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
    return figure


def bulk_tokens_per_second(result: MixResult, one: MixRound, *, alone: bool) -> float:
    """Tokens of documents a second in one round."""
    rate = (one.bulk_alone if alone else one.bulk).requests_per_second
    return rate * result.documents_per_request * result.tokens_per_document


def _row(result: MixResult, number: int, one: MixRound) -> tuple[str, ...]:
    streams = (one.queries_alone, one.bulk_alone, one.queries, one.bulk)
    return (
        str(number),
        f"{one.queries_alone.p50_milliseconds:,.1f} ms",
        f"{one.queries_alone.p99_milliseconds:,.1f} ms",
        f"{one.queries.p50_milliseconds:,.1f} ms",
        f"{one.queries.p99_milliseconds:,.1f} ms",
        f"{one.queries.p99_milliseconds / one.queries_alone.p99_milliseconds:.1f}",
        f"{bulk_tokens_per_second(result, one, alone=True):,.0f} tokens/s",
        f"{bulk_tokens_per_second(result, one, alone=False):,.0f} tokens/s",
        f"{one.bulk.requests_per_second / one.bulk_alone.requests_per_second:.0%}",
        f"{one.queries.requests_per_second:,.0f}",
        str(sum(stream.failures for stream in streams)),
    )
