"""The steps of an export."""

from benchmarks.records.base import Record, Result
from embed_runtime.types import Precision


class ExportStep(Record, frozen=True, kw_only=True):
    """One step of an export.

    Attributes:
        title: As embed-export names it.
        seconds: How long it took.
        peak_memory_bytes: Resident memory at its highest, child processes included.
        peak_private_bytes: The same without pages of mapped files.
    """

    title: str
    seconds: float
    peak_memory_bytes: int
    peak_private_bytes: int


class ExportRun(Record, frozen=True, kw_only=True):
    """One export, then its bundle opened and used.

    Attributes:
        name: The model.
        num_parameters: Numbers in its weights.
        checkpoint_bytes: Size of its weight files.
        weights_bytes: Size of the weights in the bundle.
        precision: Of the bundle.
        engines: Which were built.
        steps: In order.
    """

    name: str
    num_parameters: int
    checkpoint_bytes: int
    weights_bytes: int
    precision: Precision
    engines: tuple[str, ...]
    steps: tuple[ExportStep, ...]


class ExportResult(Result, frozen=True, kw_only=True, tag="export"):
    """Exports measured by one command."""

    num_threads: int
    runs: tuple[ExportRun, ...]
