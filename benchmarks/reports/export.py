"""The steps of exports: a table for each."""

from benchmarks.records.export import ExportResult, ExportRun
from benchmarks.reports.markdown import mebibytes, run_line, table


def export_tables(result: ExportResult) -> list[str]:
    """Write one table per export."""
    blocks = [run_line(result.run, f"{result.num_threads} threads")]
    for run in result.runs:
        blocks += [_heading(run), _table(run)]
    return blocks


def _heading(run: ExportRun) -> str:
    return (
        f"**{run.name}** in {run.precision} ({', '.join(run.engines)}):"
        f" {run.num_parameters / 1e6:,.0f} million parameters, checkpoint"
        f" {mebibytes(run.checkpoint_bytes)}, weights in the bundle"
        f" {mebibytes(run.weights_bytes)}"
    )


def _table(run: ExportRun) -> str:
    return table(
        ("step", "seconds", "peak memory", "without mapped files", "times the weights"),
        (
            (
                step.title,
                f"{step.seconds:,.1f}",
                mebibytes(step.peak_memory_bytes),
                mebibytes(step.peak_private_bytes),
                f"{step.peak_memory_bytes / run.weights_bytes:.2f}",
            )
            for step in run.steps
        ),
    )
