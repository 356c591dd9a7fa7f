"""A stored result as a table in Markdown and as a picture."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import (
    ExportResult,
    Measurement,
    Result,
    ServingResult,
    WorkloadResult,
)

_HEADER = (
    "system", "engine", "precision", "tokens/s", "texts/s", "spread", "times baseline",
    "share of ceiling", "min cosine", "padding", "memory", "load",
)  # fmt: skip
_COLORS = {"fp32": "#4878a8", "fp16": "#c0803a", "bf16": "#3a9a6a", "int8": "#8a5aa8"}


def to_markdown(result: Result) -> str:
    """Write the result as one table per workload, under a line that says where it ran."""
    machine = result.machine
    where = f"{machine.cpu}, {machine.num_cores} cores, {result.num_threads} threads"
    versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
    blocks = [
        f"{result.date}, {where}, commit {result.commit}: `{result.command}`",
        f"Medians of {result.num_rounds} rounds; {versions}.",
    ]
    for workload in result.workloads:
        blocks += [_heading(workload), _table(workload)]
    return "\n\n".join(blocks) + "\n"


def exports_to_markdown(result: ExportResult) -> str:
    """Write measured exports as one table each, under a line that says where they ran."""
    machine = result.machine
    where = f"{machine.cpu}, {machine.num_cores} cores, {result.num_threads} threads"
    blocks = [f"{result.date}, {where}, commit {result.commit}: `{result.command}`"]
    for run in result.runs:
        heading = (
            f"**{run.name}** in {run.precision} ({', '.join(run.engines)}):"
            f" {run.num_parameters / 1e6:,.0f} million parameters, checkpoint"
            f" {_mebibytes(run.checkpoint_bytes)}, weights in the bundle"
            f" {_mebibytes(run.weights_bytes)}"
        )
        header = ("step", "seconds", "peak memory", "without mapped files", "times the weights")
        rows = [
            (
                step.title,
                f"{step.seconds:,.1f}",
                _mebibytes(step.peak_memory_bytes),
                _mebibytes(step.peak_private_bytes),
                f"{step.peak_memory_bytes / run.weights_bytes:.2f}",
            )
            for step in run.steps
        ]
        table = [header, ("---",) * len(header), *rows]
        blocks += [heading, "\n".join(_line(row) for row in table)]
    return "\n\n".join(blocks) + "\n"


def serving_to_markdown(result: ServingResult) -> str:
    """Write a server's figures as one table, under a line that says where it ran."""
    header = (
        "request", "connections", "requests/s", "vectors/s", "p50", "p99", "CPU per vector",
        "memory", "failures",
    )  # fmt: skip
    rows = [
        (
            one.kind,
            str(one.connections),
            f"{one.requests_per_second:,.0f}",
            f"{one.vectors_per_second:,.0f}",
            f"{one.p50_milliseconds:,.1f} ms",
            f"{one.p99_milliseconds:,.1f} ms",
            f"{one.cpu_microseconds_per_vector:,.0f} us",
            _mebibytes(one.memory_bytes),
            str(one.failures),
        )
        for one in result.measurements
    ]
    table = [header, ("---",) * len(header), *rows]
    where = f"{result.date}, {result.machine.cpu}, server and load generator on a core each"
    heading = f"{where}, commit {result.commit}: `{result.command}`"
    return "\n\n".join([heading, "\n".join(_line(row) for row in table)]) + "\n"


def save_plot(result: Result, path: Path) -> None:
    """Draw tokens per second of every system, one panel per workload, as PNG."""
    from matplotlib.figure import Figure

    where = f"{result.machine.cpu}, {result.num_threads} threads, {result.date}"
    figure = Figure(figsize=(5 * len(result.workloads), 3.6), layout="constrained")
    panels = figure.subplots(1, len(result.workloads), squeeze=False)[0]
    for panel, workload in zip(panels, result.workloads, strict=True):
        measurements = workload.measurements
        bars = panel.bar(
            [f"{m.name}\n{m.engine}\n{m.precision}" for m in measurements],
            [m.tokens_per_second for m in measurements],
            color=[_COLORS[m.precision] for m in measurements],
        )
        labels = [f"{m.ratio:.2f}x\n{m.share_of_ceiling:.0%} of ceiling" for m in measurements]
        panel.bar_label(bars, labels, fontsize=8)
        panel.margins(y=0.2)
        panel.set_title(f"{workload.name}\n{where}", fontsize=9)
        panel.set_ylabel("real tokens/s")
        panel.tick_params(axis="x", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs


def _heading(workload: WorkloadResult) -> str:
    texts = workload.texts
    ceilings = ", ".join(
        f"{c.precision} {c.flops_per_second / 1e9:.0f} GFLOP/s" for c in workload.ceilings
    )
    return (
        f"**{workload.name}**: {texts.num_texts:,} texts, {texts.num_tokens:,} tokens"
        f" (mean {texts.mean:.0f}, median {texts.median:.0f}, 95th percentile {texts.p95:.0f},"
        f" longest {texts.max}); matrix products: {ceilings}"
    )


def _table(workload: WorkloadResult) -> str:
    rows = [_HEADER, ("---",) * len(_HEADER), *map(_row, workload.measurements)]
    return "\n".join(_line(row) for row in rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
        "not known" if m.padding_share is None else f"{m.padding_share:.0%}",
        _mebibytes(m.peak_memory_bytes),
        f"{m.load_seconds:.1f} s",
    )


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
