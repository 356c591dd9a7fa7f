"""Systems side by side: a table and a panel of bars for each workload."""

from typing import TYPE_CHECKING

from benchmarks.records.comparison import ComparisonResult, Measurement, WorkloadResult
from benchmarks.reports.markdown import mebibytes, run_line, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADER = (
    "system", "engine", "precision", "tokens/s", "texts/s", "spread", "times baseline",
    "share of ceiling", "cosine, min", "mean", "padding", "one text, p50", "p99", "memory",
    "first vector",
)  # fmt: skip
_COLORS = {"fp32": "#4878a8", "fp16": "#c0803a", "bf16": "#3a9a6a", "int8": "#8a5aa8"}


def comparison_tables(result: ComparisonResult) -> list[str]:
    """Write one table per workload."""
    versions = ", ".join(f"{name} {number}" for name, number in result.run.versions.items())
    blocks = [
        run_line(result.run, f"{result.num_threads} threads"),
        f"Medians of {result.num_rounds} rounds; this environment: {versions}.",
    ]
    for workload in result.workloads:
        blocks += [_heading(workload), table(_HEADER, map(_row, workload.measurements))]
    return blocks


def draw_comparison(result: ComparisonResult) -> "Figure":
    """Draw tokens per second of every system, one panel per workload."""
    from matplotlib.figure import Figure

    where = f"{result.run.machine.cpu}, {result.num_threads} threads, {result.run.date}"
    rows = sum(len(workload.measurements) + 2 for workload in result.workloads)
    figure = Figure(figsize=(9, 0.32 * rows + 0.6), layout="constrained")
    heights = [len(workload.measurements) + 2 for workload in result.workloads]
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, workload in zip(panels, result.workloads, strict=True):
        measurements = workload.measurements
        bars = panel.barh(
            [f"{m.name}, {m.precision}" for m in measurements],
            [m.tokens_per_second for m in measurements],
            color=[_COLORS[m.precision] for m in measurements],
        )
        labels = [f"{m.ratio:.2f}x, {m.share_of_ceiling:.0%} of ceiling" for m in measurements]
        panel.bar_label(bars, labels, fontsize=8, padding=3)
        panel.invert_yaxis()
        panel.margins(x=0.25)
        panel.set_title(f"{_title(workload)}; {where}", fontsize=9)
        panel.set_xlabel("real tokens/s")
        panel.tick_params(axis="y", labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _title(workload: WorkloadResult) -> str:
    """Name the model, and the length where all texts have one."""
    return (
        workload.name if workload.length is None else f"{workload.name}, {workload.length} tokens"
    )


def _heading(workload: WorkloadResult) -> str:
    texts = workload.texts
    ceilings = ", ".join(
        f"{c.precision} {c.flops_per_second / 1e9:.0f} GFLOP/s" for c in workload.ceilings
    )
    return (
        f"**{_title(workload)}**: {texts.num_texts:,} texts, {texts.num_tokens:,} tokens"
        f" (mean {texts.mean:.0f}, median {texts.median:.0f}, 95th percentile {texts.p95:.0f},"
        f" longest {texts.max}); matrix products: {ceilings}"
    )


def _row(m: Measurement) -> tuple[str, ...]:
    return (
        m.name,
        m.engine,
        m.precision,
        f"{m.tokens_per_second:,.0f}",
        f"{m.texts_per_second:,.1f}",
        f"{m.spread:.0%}",
        f"{m.ratio:.2f} ({m.ratio_min:.2f} to {m.ratio_max:.2f})",
        f"{m.share_of_ceiling:.0%}",
        f"{m.min_cosine:.7f}",
        "" if m.mean_cosine is None else f"{m.mean_cosine:.7f}",
        "not known" if m.padding_share is None else f"{m.padding_share:.0%}",
        "" if m.latency is None else f"{m.latency.p50_milliseconds:,.1f} ms",
        "" if m.latency is None else f"{m.latency.p99_milliseconds:,.1f} ms",
        mebibytes(m.peak_memory_bytes),
        "" if m.startup_seconds is None else f"{m.startup_seconds:.1f} s",
    )
