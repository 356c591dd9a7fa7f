"""The whole exporter: checkpoint in, proven bundle out."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from embed_export.build import build_engine
from embed_export.bundle import bundle_folder, check_output, default_output, describe_files
from embed_export.channels import measure_channels
from embed_export.config import ExportConfig
from embed_export.corpus import longest_probe, probe_texts
from embed_export.dialects import graph_name, write_graphs
from embed_export.errors import ExportError
from embed_export.limits import TOLERANCES
from embed_export.memory import return_large_blocks
from embed_export.model_spec import ModelSpec
from embed_export.probe import Reference, write_reference
from embed_export.progress import QuietSteps, Steps
from embed_export.reference import run_original
from embed_export.source import Source, read_source
from embed_export.verify import certify, record_certificate
from embed_runtime.bundle import fingerprint, write_manifest
from embed_runtime.certificate import Certificate, read_certificate
from embed_runtime.engines import Backend, BuildSpec, BuiltEngine, backend_names, get_backend
from embed_runtime.errors import EmbedError
from embed_runtime.manifest import (
    CHAT_TEMPLATE_NAME,
    SCHEMA_VERSION,
    TOKENIZER_NAME,
    ChatTemplate,
    Dialect,
    EngineEntry,
    Manifest,
    Model,
    PrecisionPolicy,
    TokenizerSpec,
)
from embed_runtime.manifest import Graph as GraphEntry
from embed_runtime.types import OutputName, Precision

# Of int8 there is a float32 copy for a while, and nothing else.
_NUM_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 4}
# Its vectors mean nothing.
_NOT_FOR_EXPORT = {"dummy"}


def export_bundle(config: ExportConfig, steps: Steps | None = None) -> tuple[Path, Certificate]:
    """Turn a checkpoint into a bundle whose engines gave the original's vectors.

    Returns:
        The bundle's folder, and its certificate.

    Raises:
        ExportError: Something the user can mend; nothing was written, an older bundle is untouched.
        EmbedError: An engine failed on this machine; likewise.
    """
    return_large_blocks()
    steps = steps or QuietSteps()
    output = config.output or default_output(config.model)
    check_output(output)
    backends = _choose_backends(config, steps)
    with steps.step(f"Reading {config.model}"):
        source = read_source(config)
    steps.note(f"{source.checkpoint.architecture}: {source.spec.summary()}")
    with bundle_folder(output, num_bytes=_estimate_bytes(source, backends)) as folder:
        channel_maxima = None
        if config.precision == "int8":
            with steps.step("Measuring activations") as advance:
                channel_maxima = measure_channels(source, folder, advance)
        # First what finds most mistakes in a checkpoint, and says them best.
        with steps.step("Writing graphs and weights"):
            (folder / TOKENIZER_NAME).write_text(source.tokenizer.tokenizer_json, encoding="utf-8")
            if source.tokenizer.chat_template is not None:
                (folder / CHAT_TEMPLATE_NAME).write_text(
                    source.tokenizer.chat_template, encoding="utf-8"
                )
            graphs = write_graphs(folder, source, channel_maxima)
        with steps.step("Running the original model") as advance:
            texts = probe_texts(
                source.spec.max_tokens,
                source.tokenizer.count,
                longest=longest_probe(_count_parameters(source)),
            )
            reference = run_original(
                source.checkpoint, source.recipe, source.spec, source.tokenizer, texts, advance
            )
            _check_precision(config.precision, reference)
            write_reference(folder, reference, is_splade=source.spec.splade is not None)
        engines = _build_engines(folder, source, backends, steps)
        manifest = _describe(folder, source, reference, graphs, engines)
        write_manifest(folder, manifest)
        certificate = _prove_engines(folder, manifest, reference, config, steps)
        record_certificate(folder, _keep_proven(folder, manifest, certificate), certificate)
    return output, read_certificate(output)


def _choose_backends(config: ExportConfig, steps: Steps) -> dict[str, Backend]:
    """Take the engines the user named, or all that can be built here.

    Raises:
        ExportError: A named engine is unknown or cannot be built here.
    """
    known = [name for name in backend_names() if name not in _NOT_FOR_EXPORT]
    named = config.engines
    if named is not None and (unknown := sorted(set(named) - set(known))):
        raise ExportError(f"unknown engine {unknown[0]!r}; known engines: {', '.join(known)}")
    chosen: dict[str, Backend] = {}
    for name in known if named is None else dict.fromkeys(named):
        backend = get_backend(name)
        availability = backend.probe()
        if backend.precision(config.precision) is None:
            reason = f"it cannot compute {config.precision} bundles"
        elif not availability.can_build:
            reason = availability.reason
        else:
            chosen[name] = backend
            continue
        if named is not None:
            raise ExportError(f"engine {name} cannot be built here: {reason}")
        steps.note(f"left out {name}: {reason}")
    if not chosen:
        raise ExportError('no engine can be built here; pip install "embed-runtime[export]"')
    return chosen


def _estimate_bytes(source: Source, backends: Mapping[str, Backend]) -> int:
    """Estimate the bundle's size: its weights once, and once more in each compiled plan."""
    num_plans = sum(name.startswith("tensorrt") for name in backends)
    num_parameters = source.checkpoint.weights.num_parameters
    return num_parameters * _NUM_BYTES[source.config.precision] * (1 + num_plans)


def _count_parameters(source: Source) -> int:
    """Count what a token is multiplied with: all weights but the table of words."""
    shape = source.spec.shape
    return source.checkpoint.weights.num_parameters - shape.vocab_size * shape.hidden_size


def _check_precision(precision: Precision, reference: Reference) -> None:
    """Refuse a precision whose range the model's activations leave."""
    if not _holds(precision, reference):
        raise ExportError(
            f"activations of this model reach {reference.max_activation:,.0f}, more than the"
            f" {TOLERANCES[precision].max_activation:,.0f} that are safe in {precision}; export"
            " with --bf16"
        )


def _holds(precision: Precision, reference: Reference) -> bool:
    """Tell whether the model's activations fit a precision's range."""
    limit = TOLERANCES[precision].max_activation
    return limit is None or reference.max_activation <= limit


def _build_engines(
    folder: Path, source: Source, backends: dict[str, Backend], steps: Steps
) -> list[tuple[str, Precision, Dialect, BuiltEngine]]:
    """Build each engine; one that nobody named may fail, and is left out with a line that says so.

    Raises:
        ExportError: A named engine failed, or all did.
    """
    built: list[tuple[str, Precision, Dialect, BuiltEngine]] = []
    for name, backend in backends.items():
        precision = backend.precision(source.config.precision)
        assert precision is not None
        dialect = backend.dialect(source.config.precision)
        build_spec = BuildSpec(
            folder=folder,
            graph=graph_name(dialect),
            dialect=dialect,
            precision=precision,
            max_tokens=source.spec.max_tokens,
            num_layers=source.spec.shape.num_layers,
        )
        with steps.step(f"Building the {name} engine"):
            try:
                built.append((name, precision, dialect, build_engine(name, build_spec)))
            except ExportError as error:
                if source.config.engines is not None or len(backends) == 1:
                    raise
                steps.note(f"left out {name}: {error}")
    if not built:
        raise ExportError("no engine could be built; name one with --engine to see why")
    return built


def _prove_engines(
    folder: Path, manifest: Manifest, reference: Reference, config: ExportConfig, steps: Steps
) -> Certificate:
    """Prove each engine; one that nobody named may fail, and is left out with a line that says so.

    Raises:
        EmbedError: A named engine failed, or no engine passed.
    """

    def leave_out(entry: EngineEntry, error: EmbedError) -> None:
        steps.note(f"left out {entry.backend}: it failed its proof: {error}")

    with steps.step("Proving engines") as advance:
        done = iter(range(len(manifest.engines)))
        return certify(
            folder,
            manifest,
            reference,
            on_engine=lambda _: advance(next(done), len(manifest.engines)),
            on_left_out=leave_out if config.engines is None else None,
        )


def _keep_proven(folder: Path, manifest: Manifest, certificate: Certificate) -> Manifest:
    """Take out the engines that the certificate leaves out, with the files that only they need.

    Graphs stay, as they do where an engine could not be built.
    """
    engines = tuple(entry for entry in manifest.engines if certificate.find(entry))
    shared = {name for graph in manifest.graphs for name in graph.files}
    kept = {name for entry in engines for name in entry.files}
    dropped = {name for entry in manifest.engines for name in entry.files} - shared - kept
    for name in dropped:
        (folder / name).unlink()
    files = {name: file for name, file in manifest.files.items() if name not in dropped}
    return msgspec.structs.replace(manifest, engines=engines, files=files)


def _describe(
    folder: Path,
    source: Source,
    reference: Reference,
    graphs: Sequence[GraphEntry],
    engines: Sequence[tuple[str, Precision, Dialect, BuiltEngine]],
) -> Manifest:
    """Put together the manifest; no engine is certified yet."""
    checkpoint, spec, tokenizer = source.checkpoint, source.spec, source.tokenizer
    files = describe_files(folder)
    entries = [
        EngineEntry(
            backend=name,
            file=built.file,
            files=built.files,
            dialect=dialect,
            precision=precision,
            device=built.device,
            producer=built.producer,
            targets=built.targets,
            max_batch_tokens=built.max_batch_tokens,
            num_fused_attention=built.num_fused_attention,
            certified=False,
            fingerprint="",
        )
        for name, precision, dialect, built in engines
    ]
    libraries = ("embed-runtime", "torch", "transformers", "onnx", "tokenizers", "numpy")
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=Model(
            id=checkpoint.id,
            architecture=checkpoint.architecture,
            model_type=checkpoint.model_type,
            revision=checkpoint.revision,
            license=checkpoint.license,
        ),
        precision=source.config.precision,
        precision_policy=PrecisionPolicy(
            max_activation=reference.max_activation,
            allowed=tuple(one for one in source.recipe.precisions if _holds(one, reference)),
        ),
        pooling=spec.pooling,
        heads=tuple(head.spec for head in spec.heads),
        sparse=spec.sparse,
        token_head=spec.token_heads.spec,
        normalize=spec.normalize,
        dimensions=spec.dimensions,
        max_tokens=spec.max_tokens,
        hidden_size=spec.shape.hidden_size,
        num_layers=spec.shape.num_layers,
        similarity=spec.similarity,
        prompts=dict(spec.prompts),
        default_prompt=spec.default_prompt,
        adapters=spec.adapters,
        tokenizer=TokenizerSpec(
            vocab_size=spec.shape.vocab_size,
            pad_token_id=tokenizer.pad_token_id,
            num_special_tokens=tokenizer.num_special_tokens,
        ),
        chat_template=None
        if tokenizer.chat_template is None
        else ChatTemplate(file=CHAT_TEMPLATE_NAME, special_tokens=dict(tokenizer.special_tokens)),
        positions=spec.shape.positions,
        outputs=_outputs(spec),
        graphs=tuple(graphs),
        engines=tuple(
            msgspec.structs.replace(
                entry, fingerprint=fingerprint(entry, graphs=graphs, files=files)
            )
            for entry in entries
        ),
        versions={name: version(name) for name in libraries},
        files=files,
    )


def _outputs(spec: ModelSpec) -> tuple[OutputName, ...]:
    outputs: tuple[OutputName, ...] = ("embedding", "pooled", "token_embeddings")
    return outputs if spec.token_heads.weights is None else (*outputs, "token_weights")
