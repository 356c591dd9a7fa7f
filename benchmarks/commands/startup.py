"""`startup`: disk, seconds and memory up to the first vector."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bundles import choose_engine, find_bundle
from benchmarks.commands.options import add_export_again, add_output, add_threads
from benchmarks.commands.storing import describe_run, store
from benchmarks.installing import install_extras, make_environment, size_on_disk
from benchmarks.records.startup import EngineStart, StartupResult
from benchmarks.starting import start_script, start_server
from benchmarks.workloads import WORKLOADS
from embed_runtime.manifest import EngineEntry

HELP = "install into a new environment, start there to a first vector, store as JSON"

_LOG = logging.getLogger("benchmarks")

# What each engine needs beside those before it.
_EXTRAS = {"onnxruntime": ("serve",), "openvino": ("serve", "openvino")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--workload", choices=WORKLOADS, default="all-MiniLM-L6-v2")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--here", action="store_true", help="start in this environment instead")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="starts of each kind")
    add_export_again(parser)
    add_threads(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    workload = WORKLOADS[options.workload]()
    bundle = find_bundle(workload, options.precision, export_again=options.export_again)
    result = StartupResult(
        run=describe_run(),
        model=workload.name,
        num_threads=options.threads,
        engines=tuple(_measure_all(bundle.absolute(), options)),
    )
    store(result, options.output, "startup", workload.name)


def _measure_all(bundle: Path, options: argparse.Namespace) -> Iterator[EngineStart]:
    """Go from the smallest environment to the largest: one folder that grows."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        python = Path(sys.executable) if options.here else make_environment(folder)
        for backend, extras in _EXTRAS.items():
            if not options.here:
                _LOG.info("installing %s", ", ".join(extras))
                install_extras(python, extras)
            yield _measure(
                python,
                bundle,
                choose_engine(bundle, backend),
                extras=() if options.here else extras,
                environment_bytes=None if options.here else size_on_disk(folder),
                options=options,
            )


def _measure(
    python: Path,
    bundle: Path,
    engine: EngineEntry,
    *,
    extras: tuple[str, ...],
    environment_bytes: int | None,
    options: argparse.Namespace,
) -> EngineStart:
    """Start once without measuring, so that files are in memory; then in turn."""
    num_threads = options.threads
    starts = [
        (
            start_server(python, bundle, engine, num_threads=num_threads),
            start_script(python, bundle, engine, num_threads=num_threads),
        )
        for _ in range(options.rounds + 1)
    ][1:]
    return EngineStart(
        engine=engine.producer,
        precision=engine.precision,
        extras=extras,
        environment_bytes=environment_bytes,
        server=tuple(server for server, _ in starts),
        offline=tuple(script for _, script in starts),
    )
