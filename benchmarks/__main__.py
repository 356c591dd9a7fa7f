"""`python -m benchmarks run`, `export`, `serve` measure and store; `report` shows a run again."""

import argparse
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.checkpoints import CACHE
from benchmarks.compare import compare
from benchmarks.dummy_bundle import write_dummy_bundle
from benchmarks.exporting import measure_export
from benchmarks.machine import (
    describe_machine,
    library_versions,
    machine_slug,
    num_physical_cores,
    source_commit,
)
from benchmarks.peers import PeerSpec, RuntimePeer, SentenceTransformersPeer
from benchmarks.report import exports_to_markdown, save_plot, serving_to_markdown, to_markdown
from benchmarks.results import ExportResult, Result, ServingResult, read_result, write_result
from benchmarks.serving import KINDS, Load, measure_serving
from benchmarks.workloads import WORKLOADS, Workload
from embed_runtime.types import Precision

_LOG = logging.getLogger("benchmarks")

# What takes minutes, not an hour.
_DEFAULT_WORKLOADS = ("all-MiniLM-L6-v2", "bge-base-size")
_CONNECTIONS = (1, 32, 256)
_RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure, store as JSON, print and plot")
    run.add_argument("--toy", action="store_true", help="a tiny model in fp32: checks, not figures")
    run.add_argument(
        "--workload", choices=WORKLOADS, action="append", help="default: those that take minutes"
    )
    run.add_argument("--rounds", type=int, default=5, metavar="N", help="timed passes of each")
    run.add_argument("--threads", type=int, default=num_physical_cores(), metavar="N")
    run.add_argument("-o", "--output", type=Path, default=_RESULTS, metavar="DIR")
    run.set_defaults(action=_run)
    export = commands.add_parser("export", help="measure the steps of an export, store as JSON")
    export.add_argument("--workload", choices=WORKLOADS, default="qwen3-0.6b-size")
    export.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    export.add_argument("--engine", action="append", metavar="NAME", help="default: onnxruntime")
    export.add_argument("--threads", type=int, default=num_physical_cores(), metavar="N")
    export.add_argument("-o", "--output", type=Path, default=_RESULTS, metavar="DIR")
    export.set_defaults(action=_measure_exports)
    serve = commands.add_parser("serve", help="load a server that has no model, store as JSON")
    serve.add_argument("--seconds", type=int, default=10, metavar="N", help="of each load")
    serve.add_argument("-o", "--output", type=Path, default=_RESULTS, metavar="DIR")
    serve.set_defaults(action=_measure_serving)
    report = commands.add_parser("report", help="print the tables of a stored result and plot it")
    report.add_argument("result", type=Path)
    report.set_defaults(action=_report)
    options = parser.parse_args(arguments)
    options.action(options)


def _run(options: argparse.Namespace) -> None:
    names = ["toy"] if options.toy else options.workload or _DEFAULT_WORKLOADS
    precisions: tuple[Precision, ...] = ("fp32",) if options.toy else ("fp32", "bf16")
    machine = describe_machine()
    result = Result(
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        commit=source_commit(),
        machine=machine,
        versions=library_versions(),
        num_threads=options.threads,
        num_rounds=options.rounds,
        workloads=tuple(
            compare(
                workload := WORKLOADS[name](),
                _peers(workload, precisions, num_threads=options.threads),
                num_rounds=options.rounds,
            )
            for name in names
        ),
    )
    path = options.output / f"{result.date}-{machine_slug(machine)}.json"
    write_result(path, result)
    _show(path)


def _peers(
    workload: Workload, precisions: Sequence[Precision], *, num_threads: int
) -> list[PeerSpec]:
    """List who is compared, the baseline first; this project's bundles are exported for it."""
    baseline = PeerSpec(
        name="sentence-transformers",
        precision="fp32",
        open_peer=SentenceTransformersPeer,
        path=workload.checkpoint,
        texts=workload.texts,
        num_threads=num_threads,
    )
    ours = [
        PeerSpec(
            name="embed-runtime",
            precision=precision,
            open_peer=RuntimePeer,
            path=_export(workload, precision),
            texts=workload.texts,
            num_threads=num_threads,
        )
        for precision in precisions
    ]
    return [baseline, *ours]


def _export(workload: Workload, precision: Precision) -> Path:
    """Export the workload's model with the engines that run on a CPU, as a user would."""
    bundle = CACHE / "bundles" / f"{workload.name}-{precision}"
    command = [
        sys.executable, "-m", "embed_export.cli", str(workload.checkpoint), "-o", str(bundle),
        f"--{precision}", "--engine", "onnxruntime", "--engine", "openvino",
    ]  # fmt: skip
    _LOG.info("exporting %s in %s", workload.name, precision)
    subprocess.run(command, check=True)
    return bundle


def _measure_exports(options: argparse.Namespace) -> None:
    workload, machine = WORKLOADS[options.workload](), describe_machine()
    precisions: Sequence[Precision] = options.precision or ("fp32", "bf16")
    result = ExportResult(
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        commit=source_commit(),
        machine=machine,
        versions=library_versions(),
        num_threads=options.threads,
        runs=tuple(
            measure_export(
                workload,
                precision=precision,
                engines=tuple(options.engine or ["onnxruntime"]),
                num_threads=options.threads,
            )
            for precision in precisions
        ),
    )
    path = options.output / f"{result.date}-export-{workload.name}-{machine_slug(machine)}.json"
    write_result(path, result)
    sys.stdout.write(exports_to_markdown(result))
    _LOG.info("stored: %s", path)


def _measure_serving(options: argparse.Namespace) -> None:
    machine = describe_machine()
    loads = [
        Load(kind=kind, connections=connections, seconds=options.seconds)
        for kind in KINDS
        for connections in _CONNECTIONS
    ]
    result = ServingResult(
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        commit=source_commit(),
        machine=machine,
        versions=library_versions(),
        seconds=options.seconds,
        measurements=tuple(measure_serving(write_dummy_bundle(), loads, num_cores=1)),
    )
    path = options.output / f"{result.date}-serving-{machine_slug(machine)}.json"
    write_result(path, result)
    sys.stdout.write(serving_to_markdown(result))
    _LOG.info("stored: %s", path)


def _report(options: argparse.Namespace) -> None:
    _show(options.result)


def _show(path: Path) -> None:
    result = read_result(path)
    save_plot(result, path.with_suffix(".png"))
    sys.stdout.write(to_markdown(result))
    _LOG.info("stored: %s and %s", path, path.with_suffix(".png").name)


if __name__ == "__main__":
    main()
