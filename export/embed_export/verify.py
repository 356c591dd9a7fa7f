"""Proves engines against the original model, by the one table of tolerances."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from embed_export.errors import ParityError
from embed_export.measure import describe_machine, measure
from embed_export.probe import Reference, read_reference, reference_names
from embed_runtime import Runtime
from embed_runtime.bundle import locate_bundle, read_manifest, verify_files, write_manifest
from embed_runtime.certificate import (
    Certificate,
    EngineCertificate,
    Figures,
    Limits,
    ReferenceIdentity,
    TaskFigures,
    read_certificate,
    write_certificate,
)
from embed_runtime.engines import get_backend
from embed_runtime.errors import BundleError, EngineError, NoEngineError
from embed_runtime.manifest import EngineEntry, Manifest
from embed_runtime.types import Precision, Task

# The one tolerance table, strictest first.
# Cosines: fp32 and 16 bit leave rankings as they are; int8 is opt-in. Vectors whose cosine is c may
# lie sqrt(2 - 2c) apart, so their lengths may differ by as much.
# Batch differences: measured alone against among others with all-MiniLM-L6-v2 on an AVX-512 CPU:
# fp32 2.5e-7 (ONNX Runtime 1.32 and OpenVINO 2026.4), bf16 6.7e-4 (OpenVINO), int8 6e-8 (ONNX
# Runtime, a scale for each token). Limits leave room for deeper models; fp16 rounds 8 times finer
# than bf16.
# Other tasks, token_embed and sparse: nothing is averaged over a text. Of all-MiniLM-L6-v2's token
# vectors the worst had 1 - cosine 3e-12 in fp32, 9e-5 in bf16 and 7e-3 in int8, and differed in a
# value by 5e-7, 4e-3 and 3e-2; a wrong head gives cosines near zero.
# Activations: fp16 ends at 65,504; sums inside a layer reach a few times the largest value seen.
TOLERANCES: dict[Precision, Limits] = {
    "fp32": Limits(
        cosine_min=0.99999,
        cosine_mean=None,
        max_norm_error=0.0045,
        batch_difference=1e-5,
        max_activation=None,
        task_cosine_min=0.9999,
        task_difference=1e-3,
    ),
    "bf16": Limits(
        cosine_min=0.999,
        cosine_mean=None,
        max_norm_error=0.045,
        batch_difference=5e-3,
        max_activation=None,
        task_cosine_min=0.99,
        task_difference=0.05,
    ),
    "fp16": Limits(
        cosine_min=0.999,
        cosine_mean=None,
        max_norm_error=0.045,
        batch_difference=1e-3,
        max_activation=2e4,
        task_cosine_min=0.995,
        task_difference=0.02,
    ),
    "int8": Limits(
        cosine_min=0.99,
        cosine_mean=0.995,
        max_norm_error=0.14,
        batch_difference=5e-3,
        max_activation=None,
        task_cosine_min=0.95,
        task_difference=0.25,
    ),
}


def limits_for(bundle: Precision, engine: Precision) -> Limits:
    """Look up what an engine must meet.

    Args:
        bundle: The precision its weights are stored in.
        engine: The precision it computes in; the coarser of the two limits how close to the
            original it can come, this one alone how much a batch and its size may change.
    """
    order = list(TOLERANCES)
    coarser = TOLERANCES[max(bundle, engine, key=order.index)]
    own = TOLERANCES[engine]
    return msgspec.structs.replace(
        coarser, batch_difference=own.batch_difference, max_activation=own.max_activation
    )


def certify(
    folder: Path,
    manifest: Manifest,
    reference: Reference,
    *,
    engines: Sequence[EngineEntry] | None = None,
    on_engine: Callable[[EngineEntry], None] | None = None,
) -> Certificate:
    """Measure engines through the runtime that will serve them.

    Args:
        folder: The bundle; its manifest is written already, with these engines uncertified.
        manifest: The same manifest.
        reference: The original model's vectors.
        engines: Which to measure; None for all.
        on_engine: Told of each one when it is done.

    Returns:
        Figures of every engine that runs here, the reason for every one that does not.

    Raises:
        ParityError: An engine falls short of its limits, or none can run here.
        BundleError: An engine that should run here does not load, or the manifest lies.
        EngineError: An engine failed.
    """
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
    engines = manifest.engines if engines is None else engines
    proofs: list[EngineCertificate] = []
    for entry in engines:
        proofs.append(_prove(folder, manifest, reference, entry))
        if on_engine:
            on_engine(entry)
    _require_parity(proofs, reference)
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


def _prove(
    folder: Path, manifest: Manifest, reference: Reference, entry: EngineEntry
) -> EngineCertificate:
    """Measure one engine, or say why it cannot run here; the verdict comes later."""
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
    except EngineError as error:
        raise EngineError(f"{_name(proof)}: {error}") from error
    return msgspec.structs.replace(
        proof,
        passed=True,
        figures=figures,
        limits=limits_for(manifest.precision, entry.precision),
        machine=describe_machine(entry.device),
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _require_parity(proofs: Sequence[EngineCertificate], reference: Reference) -> None:
    shortfalls: list[tuple[str, float, float]] = []
    passed: list[str] = []
    for proof in proofs:
        if proof.figures and proof.limits:
            found = [*_shortfalls(proof.figures, proof.limits, reference)]
            shortfalls += [
                (f"{_name(proof)}: {words}", measured, allowed)
                for words, measured, allowed in found
            ]
            passed += [] if found else [proof.backend]
    if shortfalls:
        _, measured, allowed = shortfalls[0]
        flags = " ".join(f"--engine {name.replace('_', '-')}" for name in dict.fromkeys(passed))
        others = f", or only what passed: {flags}" if passed else ""
        raise ParityError(
            f"not the original model's vectors: {'; '.join(words for words, _, _ in shortfalls)};"
            f" use a finer precision{others}",
            measured=measured,
            allowed=allowed,
        )
    if not any(proof.figures for proof in proofs):
        reasons = "; ".join(f"{proof.backend}: {proof.reason}" for proof in proofs)
        raise ParityError(
            f"no engine could be proven on this machine ({reasons or 'there is none'})",
            measured=0,
            allowed=1,
        )


def _shortfalls(
    figures: Figures, limits: Limits, reference: Reference
) -> Iterator[tuple[str, float, float]]:
    """Yield every figure outside its limit, in words, as measured and as allowed."""
    if figures.num_non_finite:
        yield (
            f"{figures.num_non_finite} values are not finite, none may be",
            (figures.num_non_finite),
            0,
        )
    batch_difference = max(figures.batch_difference_alone, figures.batch_difference_shuffled)
    for name, measured, least in (
        ("smallest cosine", figures.cosine_min, limits.cosine_min),
        ("mean cosine", figures.cosine_mean, limits.cosine_mean),
    ):
        # Written so that NaN, which compares false with everything, is a shortfall.
        if least is not None and not measured >= least:
            yield f"{name} {measured:.7g}, {least:g} at least", measured, least
    for name, measured, most in (
        ("length differs by", figures.max_norm_error, limits.max_norm_error),
        ("a value changes with its batch by", batch_difference, limits.batch_difference),
        ("activations reach", reference.max_activation, limits.max_activation),
    ):
        if most is not None and not measured <= most:
            yield f"{name} {measured:.3g}, {most:g} at most", measured, most
    for task, one in figures.tasks.items():
        yield from _task_shortfalls(task, one, limits)


def _task_shortfalls(
    task: Task, figures: TaskFigures, limits: Limits
) -> Iterator[tuple[str, float, float]]:
    """Yield what a task other than `embed` falls short of."""
    measured, least = figures.cosine_min, limits.task_cosine_min
    if least is not None and not measured >= least:
        yield f"{task}: smallest cosine {measured:.7g}, {least:g} at least", measured, least
    measured, most = figures.max_difference, limits.task_difference
    if most is not None and not measured <= most:
        yield f"{task}: a value differs by {measured:.3g}, {most:g} at most", measured, most


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


def _name(proof: EngineCertificate) -> str:
    return f"{proof.backend} {proof.precision} ({proof.file})"
