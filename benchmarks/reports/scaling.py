"""Cost against size: a table of steps, and two curves."""

from typing import TYPE_CHECKING

from benchmarks.records.scaling import ScalingResult
from benchmarks.reports.markdown import mebibytes, run_line, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADER = (
    "texts in a call", "calls", "tokens/s", "texts/s", "peak memory", "vectors", "memory without",
)  # fmt: skip


def scaling_tables(result: ScalingResult) -> list[str]:
    """Write one line per size of a call."""
    num_texts = sum(step.num_calls * step.num_texts for step in result.steps)
    mean = sum(step.num_tokens for step in result.steps) / num_texts
    heading = (
        f"**{result.model}** in {result.precision} ({result.engine}): texts of"
        f" {result.words_per_text} random words, {mean:.0f} tokens on average"
    )
    rows = [
        (
            f"{step.num_texts:,}",
            f"{step.num_calls:,}",
            f"{step.tokens_per_second:,.0f}",
            f"{step.num_texts * step.num_calls / step.seconds:,.0f}",
            mebibytes(step.peak_memory_bytes),
            mebibytes(step.vectors_bytes),
            mebibytes(step.peak_memory_bytes - step.vectors_bytes),
        )
        for step in result.steps
    ]
    return [run_line(result.run, f"{result.num_threads} threads"), heading, table(_HEADER, rows)]


def draw_scaling(result: ScalingResult) -> "Figure":
    """Draw tokens per second and memory against the texts of a call."""
    from matplotlib.figure import Figure

    sizes = [step.num_texts for step in result.steps]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    rates, memory = figure.subplots(1, 2)
    rates.plot(sizes, [step.tokens_per_second for step in result.steps], "o-", color="#3a9a6a")
    rates.set_ylabel("real tokens/s")
    peaks = [step.peak_memory_bytes / 2**20 for step in result.steps]
    vectors = [step.vectors_bytes / 2**20 for step in result.steps]
    memory.plot(sizes, peaks, "o-", color="#4878a8", label="peak")
    memory.plot(sizes, vectors, "o--", color="#9ab8d4", label="of these, the vectors")
    memory.set_ylabel("resident memory, MiB")
    memory.legend(fontsize=8, frameon=False)
    for panel in (rates, memory):
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
        panel.set_xlabel("texts in a call")
        panel.spines[["top", "right"]].set_visible(False)
    rates.set_title(
        f"{result.model} {result.precision}, {result.run.machine.cpu},"
        f" {result.num_threads} threads, {result.run.date}",
        fontsize=9,
        loc="left",
    )
    return figure
