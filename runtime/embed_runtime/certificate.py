"""`certificate.json`: how close each engine of a bundle came to the original model."""

import hashlib
from pathlib import Path

import msgspec

from embed_runtime.bundle import replace_file
from embed_runtime.errors import BundleError
from embed_runtime.manifest import CERTIFICATE_NAME, Device, EngineEntry, Record
from embed_runtime.types import Precision, Task

CERTIFICATE_VERSION = 1

_NO_DIGEST = "0" * 64


class Machine(Record, kw_only=True):
    """Where figures were measured.

    Attributes:
        cpu: Model name of the processor.
        num_cpus: Logical processors the process could use.
        gpu: Model name of the first GPU; None for engines that run on the CPU.
        system: Operating system, kernel and architecture.
    """

    cpu: str
    num_cpus: int
    gpu: str | None
    system: str


class Limits(Record, kw_only=True):
    """What an engine's figures had to meet; None where the precision sets no limit."""

    cosine_min: float
    cosine_mean: float | None
    max_norm_error: float
    batch_difference: float
    max_activation: float | None
    task_cosine_min: float | None = None
    task_difference: float | None = None


class TaskFigures(Record, kw_only=True):
    """What was measured of a task other than `embed`.

    Attributes:
        cosine_min: Smallest cosine between a vector and its reference: of a token's vector, or of
            all weights of a text that has noteworthy ones.
        cosine_mean: Mean of these cosines.
        max_difference: Largest difference of a value to its reference, over the length of the
            token's vector, or over the largest weight of all texts.
        num_vectors: Tokens, or texts, that were compared.
    """

    cosine_min: float
    cosine_mean: float
    max_difference: float
    num_vectors: int


class Figures(Record, kw_only=True):
    """What was measured over the probe texts.

    Differences are between single values, after dividing both vectors by the reference's length.

    Attributes:
        cosine_min: Smallest cosine between a vector and its reference.
        cosine_mean: Mean of these cosines.
        max_abs_difference: Largest difference to the reference.
        max_norm_error: Largest relative difference in length to the reference.
        sign_flips: Share of values whose sign differs from the reference's.
        batch_difference_alone: Largest change when a text is embedded alone, not among others.
        batch_difference_shuffled: Largest change when the same texts come in another order.
        num_non_finite: Values that are NaN or infinite.
        num_texts: Probe texts.
        num_tokens: Tokens of all probe texts, as the model read them.
        tokens_per_second: Real tokens, over documentation text in one call.
        tasks: Figures of the bundle's other tasks, by name.
    """

    cosine_min: float
    cosine_mean: float
    max_abs_difference: float
    max_norm_error: float
    sign_flips: float
    batch_difference_alone: float
    batch_difference_shuffled: float
    num_non_finite: int
    num_texts: int
    num_tokens: int
    tokens_per_second: float
    tasks: dict[Task, TaskFigures] = msgspec.field(default_factory=dict[Task, TaskFigures])


class ReferenceIdentity(Record, kw_only=True):
    """The original model's run that every engine is compared with.

    Attributes:
        dtype: What it computed in.
        versions: Libraries it ran on.
        max_activation: Largest absolute activation seen in it; None where it was not recorded.
    """

    dtype: str
    versions: dict[str, str]
    max_activation: float | None


class EngineCertificate(Record, kw_only=True):
    """One engine: its figures, or why there are none.

    Attributes:
        backend: As in the manifest's entry, like the next five.
        file: The engine's main file.
        precision: What it computes in.
        device: Where it runs.
        producer: Library and version that built it.
        fingerprint: Ties these figures to one built engine.
        passed: Whether it was run and met every limit.
        reason: Why it was not run; empty when it was.
        figures: None when it was not run, like the next three.
        limits: What was asked of the figures.
        machine: Where they were measured.
        date: When, in UTC, like "2026-11-24T18:35:00Z".
    """

    backend: str
    file: str
    precision: Precision
    device: Device
    producer: str
    fingerprint: str
    passed: bool
    reason: str = ""
    figures: Figures | None = None
    limits: Limits | None = None
    machine: Machine | None = None
    date: str | None = None

    def covers(self, entry: EngineEntry) -> bool:
        """Tell whether these figures are about this entry of the manifest."""
        return (self.backend, self.file, self.device, self.fingerprint) == (
            entry.backend,
            entry.file,
            entry.device,
            entry.fingerprint,
        )


class Certificate(Record, kw_only=True):
    """All engines of a bundle, in the manifest's order.

    Attributes:
        schema_version: Of this file.
        sha256: SHA-256 of the file, taken with 64 zeros in this place.
        model: The manifest's model id.
        precision: The manifest's precision.
        reference: What the engines were compared with.
        engines: One entry each.
    """

    schema_version: int = CERTIFICATE_VERSION
    sha256: str = _NO_DIGEST
    model: str
    precision: Precision
    reference: ReferenceIdentity
    engines: tuple[EngineCertificate, ...]

    def find(self, entry: EngineEntry) -> EngineCertificate | None:
        """Look up what is known about an engine; None for one this certificate does not cover."""
        return next((proof for proof in self.engines if proof.covers(entry)), None)

    def summary(self) -> str:
        """Say in a few lines what was proven, for a person."""
        proven = [
            (proof, proof.figures, proof.limits, proof.machine)
            for proof in self.engines
            if proof.figures and proof.limits and proof.machine
        ]
        verdict = "; ".join(
            f"{_name(proof)} {'passed' if proof.passed else f'not run ({proof.reason})'}"
            for proof in self.engines
        )
        reference = " ".join([self.reference.dtype, *_versions(self.reference.versions)])
        texts = "; ".join(
            sorted({f"{f.num_texts} texts, {f.num_tokens} tokens" for _, f, _, _ in proven})
        )
        cosines = "; ".join(
            f"{_name(proof)} {figures.cosine_min:.7f} / {figures.cosine_mean:.7f}"
            f"{_at_least(limits.cosine_min)}"
            for proof, figures, limits, _ in proven
        )
        batches = "; ".join(
            f"{_name(proof)} {_batch_difference(figures):.1e} (at most {limits.batch_difference:g})"
            for proof, figures, limits, _ in proven
        )
        speeds = "; ".join(
            f"{_name(proof)} {figures.tokens_per_second:,.0f} tokens/s"
            f" on {machine.gpu or machine.cpu}"
            for proof, figures, _, machine in proven
        )
        tasks = "; ".join(
            f"{_name(proof)} {task} {one.cosine_min:.7f} / {one.cosine_mean:.7f}"
            f"{_at_least(limits.task_cosine_min)}"
            for proof, figures, limits, _ in proven
            for task, one in figures.tasks.items()
        )
        return "\n".join(
            [
                f"{self.model} {self.precision}: {verdict}",
                f"reference: {reference}; probe: {texts or 'none'}",
                f"cosine, min / mean: {cosines or 'none'}",
                *([f"other tasks, cosine, min / mean: {tasks}"] if tasks else []),
                f"largest change by batch and order: {batches or 'none'}",
                f"speed: {speeds or 'none'}",
            ]
        )


def read_certificate(folder: Path) -> Certificate:
    """Read a bundle's certificate.

    Raises:
        BundleError: It is missing, damaged, of another version, or has unknown keys.
    """
    path = folder / CERTIFICATE_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror}; export the model again"
        ) from error
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != CERTIFICATE_VERSION:
            raise BundleError(
                f"{path} has schema version {version}, this embed-runtime reads"
                f" {CERTIFICATE_VERSION}; install the matching version or export the model again"
            )
        certificate = msgspec.json.decode(data, type=Certificate)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}; export the model again") from error
    if certificate.sha256 != _digest(
        data.replace(certificate.sha256.encode(), _NO_DIGEST.encode(), 1)
    ):
        raise BundleError(f"{path} was changed after it was written; export the model again")
    return certificate


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Write a bundle's certificate: all of it or, when interrupted, none of it."""
    unsigned = msgspec.structs.replace(certificate, sha256=_NO_DIGEST)
    data = msgspec.json.format(msgspec.json.encode(unsigned), indent=2) + b"\n"
    data = data.replace(_NO_DIGEST.encode(), _digest(data).encode(), 1)
    replace_file(folder / CERTIFICATE_NAME, data)


class _Version(msgspec.Struct):
    """The one key that every version of the file has."""

    schema_version: int


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _name(proof: EngineCertificate) -> str:
    return f"{proof.backend} {proof.precision}"


def _at_least(limit: float | None) -> str:
    return "" if limit is None else f" (at least {limit:g})"


def _versions(versions: dict[str, str]) -> list[str]:
    return [f"{name} {version}" for name, version in sorted(versions.items())]


def _batch_difference(figures: Figures) -> float:
    return max(figures.batch_difference_alone, figures.batch_difference_shuffled)
