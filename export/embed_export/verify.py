"""Proves engines against the original model, through the runtime that will serve them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, TypeAlias

import msgspec

from embed_export.errors import ParityError
from embed_export.limits import find_shortfalls, limits_for
from embed_export.measure import describe_machine, measure
from embed_export.probe import Reference, read_reference, reference_names
from embed_runtime import Runtime
from embed_runtime.bundle import locate_bundle, read_manifest, verify_files, write_manifest
from embed_runtime.certificate import (
    Certificate,
    EngineCertificate,
    ReferenceIdentity,
    read_certificate,
    write_certificate,
)
from embed_runtime.engines import get_backend
from embed_runtime.errors import BundleError, EmbedError, EngineError, NoEngineError
from embed_runtime.manifest import EngineEntry, Manifest

# What an engine can fail its proof with.
_Failure: TypeAlias = ParityError | NoEngineError | EngineError


def certify(
    folder: Path,
    manifest: Manifest,
    reference: Reference,
    *,
    engines: Sequence[EngineEntry] | None = None,
    on_engine: Callable[[EngineEntry], None] | None = None,
    on_left_out: Callable[[EngineEntry, EmbedError], None] | None = None,
) -> Certificate:
    """Measure engines through the runtime that will serve them.

    Args:
        folder: The bundle; its manifest is written already, with these engines uncertified.
        manifest: The same manifest.
        reference: The original model's vectors.
        engines: Which to measure; None for all.
        on_engine: Told of each one when it is done.
        on_left_out: Told of each one that failed, which may then be missing from the certificate as
            long as another passes; None where every engine has to pass.

    Returns:
        Figures of every engine that runs here, the reason for every one that does not.

    Raises:
        ParityError: An engine falls short of its limits, or none can run here.
        NoEngineError: An engine that should run here does not load.
        EngineError: An engine failed.
        BundleError: The manifest lies.
    """
    _check_reference(folder, manifest, reference)
    engines = manifest.engines if engines is None else engines
    proofs: list[EngineCertificate] = []
    failures: list[tuple[EngineEntry, _Failure]] = []
    for entry in engines:
        try:
            proofs.append(_prove(folder, manifest, reference, entry))
        except (ParityError, NoEngineError, EngineError) as error:
            failures.append((entry, error))
        if on_engine:
            on_engine(entry)
    if not any(proof.passed for proof in proofs):
        _stop(failures, proofs)
    for entry, failure in failures:
        if on_left_out is None:
            _stop(failures, proofs)
        on_left_out(entry, failure)
    return Certificate(
        model=manifest.model.id,
        precision=manifest.precision,
        reference=ReferenceIdentity(
            dtype="float32",
            versions=dict(reference.versions),
            max_activation=reference.max_activation,
        ),
        engines=tuple(proofs),
    )


def record_certificate(folder: Path, manifest: Manifest, certificate: Certificate) -> Manifest:
    """Write a certificate into a bundle, and what follows from it into the manifest.

    Engines that passed become certified and stand first, the fastest in front.

    Returns:
        The manifest as written.
    """
    engines = [_with_proof(entry, certificate.find(entry)) for entry in manifest.engines]
    engines.sort(key=lambda entry: -(entry.tokens_per_second or 0))
    manifest = msgspec.structs.replace(manifest, engines=tuple(engines))
    proofs = [proof for entry in engines if (proof := certificate.find(entry))]
    # The certificate first: a stop between the two leaves an engine proven and not yet in use.
    write_certificate(folder, msgspec.structs.replace(certificate, engines=tuple(proofs)))
    write_manifest(folder, manifest)
    return manifest


def verify_bundle(
    path: Path, *, on_engine: Callable[[EngineEntry], None] | None = None
) -> Certificate:
    """Prove a bundle again, on this machine and without the original model.

    Checks every file against its SHA-256 and every engine that runs here against the stored
    reference vectors. What was measured is recorded: an engine that could not run where it was
    built is certified from then on, and the fastest engine of this machine stands first. Engines
    that cannot run here keep the figures they have. A bundle that is read-only is left as it is.

    Args:
        path: The bundle, or one engine file in it to verify that engine only.
        on_engine: Told of each engine when it is done.

    Raises:
        BundleError: The bundle is damaged, or a newly certified engine cannot be recorded.
        ParityError: An engine falls short of its limits, or none can run here; nothing is recorded.
        EngineError: An engine failed.
    """
    folder, file = locate_bundle(path)
    manifest = read_manifest(folder)
    verify_files(folder, manifest, [*manifest.files, *reference_names(manifest)])
    known = read_certificate(folder)
    reference = read_reference(folder)
    engines = [entry for entry in manifest.engines if file in (None, entry.file)]
    if not engines:
        files = ", ".join(sorted({entry.file for entry in manifest.engines})) or "none"
        raise BundleError(f"{path}: no engine to verify; the bundle's engines: {files}")
    measured = certify(folder, manifest, reference, engines=engines, on_engine=on_engine)
    certificate = _keep_known(measured, known, manifest)
    # Measuring takes minutes, and an export may have put another bundle here meanwhile.
    if read_manifest(folder) != manifest:
        raise BundleError(f"{folder} changed while it was verified; verify it again")
    try:
        record_certificate(folder, manifest, certificate)
    except OSError as error:
        for entry in engines:
            proof = measured.find(entry)
            if proof and proof.passed and not entry.certified:
                raise BundleError(
                    f"{entry.backend} passed but {folder} cannot be written ({error.strerror}), so"
                    " it stays uncertified; verify a writable copy"
                ) from error
    return certificate


def _check_reference(folder: Path, manifest: Manifest, reference: Reference) -> None:
    """Refuse a reference that is not of what the manifest describes."""
    if reference.vectors.shape[1] != manifest.dimensions.native:
        raise BundleError(
            f"{folder}: the manifest says {manifest.dimensions.native} dimensions and the reference"
            f" vectors have {reference.vectors.shape[1]}; export the model again"
        )
    for is_offered, part, words in (
        (manifest.sparse, reference.sparse, "sparse weights"),
        (manifest.token_head, reference.tokens, "token vectors"),
    ):
        if is_offered is not None and part is None:
            raise BundleError(f"{folder}: the reference has no {words}; export the model again")


def _prove(
    folder: Path, manifest: Manifest, reference: Reference, entry: EngineEntry
) -> EngineCertificate:
    """Hold one engine to its limits, or say why it cannot run here.

    Raises:
        ParityError: It falls short of them.
        NoEngineError: It should run here and does not load.
        EngineError: It failed.
    """
    proof = EngineCertificate(
        backend=entry.backend,
        file=entry.file,
        precision=entry.precision,
        device=entry.device,
        producer=entry.producer,
        fingerprint=entry.fingerprint,
        passed=False,
    )
    backend = get_backend(entry.backend)
    availability = backend.probe()
    if not availability.can_run:
        return msgspec.structs.replace(proof, reason=availability.reason)
    if backend.precision(manifest.precision) is None:
        reason = f"it cannot compute {manifest.precision} bundles on this machine"
        return msgspec.structs.replace(proof, reason=reason)
    try:
        with Runtime(folder / entry.file, engine=entry.backend) as runtime:
            figures = measure(runtime, reference)
    except NoEngineError as error:
        # A plan of another GPU or library waits for its machine; a graph runs on all of them.
        if any(entry.file in graph.files for graph in manifest.graphs):
            raise
        return msgspec.structs.replace(proof, reason=str(error))
    limits = limits_for(manifest.precision, entry.precision)
    if shortfalls := [*find_shortfalls(figures, limits, reference)]:
        _, measured, allowed = shortfalls[0]
        words = "; ".join(words for words, _, _ in shortfalls)
        raise ParityError(words, measured=measured, allowed=allowed)
    return msgspec.structs.replace(
        proof,
        passed=True,
        figures=figures,
        limits=limits,
        machine=describe_machine(entry.device),
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _stop(
    failures: Sequence[tuple[EngineEntry, _Failure]], proofs: Sequence[EngineCertificate]
) -> NoReturn:
    """Raise what stands in the way: the first engine that did not run, else all shortfalls.

    Args:
        failures: The engines that failed.
        proofs: The others; where none failed, none of them could run here.
    """
    shortfalls: list[tuple[str, ParityError]] = []
    for entry, error in failures:
        name = f"{entry.backend} {entry.precision} ({entry.file})"
        if isinstance(error, NoEngineError):
            raise error
        if isinstance(error, EngineError):
            raise EngineError(f"{name}: {error}") from error
        shortfalls.append((f"{name}: {error}", error))
    if not shortfalls:
        reasons = "; ".join(f"{proof.backend}: {proof.reason}" for proof in proofs)
        raise ParityError(
            f"no engine could be proven on this machine ({reasons or 'there is none'})",
            measured=0,
            allowed=1,
        )
    passed = dict.fromkeys(proof.backend for proof in proofs if proof.passed)
    flags = " ".join(f"--engine {name.replace('_', '-')}" for name in passed)
    others = f", or only what passed: {flags}" if passed else ""
    _, first = shortfalls[0]
    raise ParityError(
        f"not the original model's vectors: {'; '.join(words for words, _ in shortfalls)};"
        f" use a finer precision{others}",
        measured=first.measured,
        allowed=first.allowed,
    )


def _with_proof(entry: EngineEntry, proof: EngineCertificate | None) -> EngineEntry:
    if proof is None or not proof.figures:
        return entry
    return msgspec.structs.replace(
        entry, certified=proof.passed, tokens_per_second=proof.figures.tokens_per_second
    )


def _keep_known(measured: Certificate, known: Certificate, manifest: Manifest) -> Certificate:
    """Complete what was measured here with what is known from elsewhere."""
    proofs: list[EngineCertificate] = []
    for entry in manifest.engines:
        here, before = measured.find(entry), known.find(entry)
        proof = here if here and here.figures else before or here
        if proof:
            proofs.append(proof)
    return msgspec.structs.replace(measured, engines=tuple(proofs))
