"""From a path to a running engine: choose, check, load, try out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embed_runtime.batching import Row, collate
from embed_runtime.bundle import fingerprint, locate_bundle, read_manifest, verify_files
from embed_runtime.config import RuntimeConfig
from embed_runtime.engines import Backend, Engine, LoadSpec, get_backend
from embed_runtime.errors import BundleError, EngineError, InputError, NoEngineError
from embed_runtime.manifest import TOKENIZER_NAME, EngineEntry, Manifest
from embed_runtime.result_cache import smallest_cache
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import Batch, EmbedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBundle:
    """A bundle that is ready to run.

    Attributes:
        folder: Where it lies.
        manifest: What it says about itself.
        tokenizer: Its tokenizer.
        entry: The engine that was chosen.
        engine: That engine, which has answered once.
        skipped: One line for each engine in front of it: why it was not chosen.
        max_batch_tokens: Tokens in one batch.
    """

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    entry: EngineEntry
    engine: Engine
    skipped: tuple[str, ...]
    max_batch_tokens: int


def load_bundle(path: Path, *, config: RuntimeConfig, engine: str | None = None) -> LoadedBundle:
    """Open a bundle with the first of its engines that runs here.

    Args:
        path: The bundle, or one engine file in it: then that engine or none.
        config: Threads and batch size.
        engine: Name of a backend: then that engine or none, even if it is not certified.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        InputError: `max_model_len` is more than the model takes, or `max_cache_bytes` less than
            one result does.
        NoEngineError: No engine that was asked for can run here.
    """
    folder, file = locate_bundle(path)
    manifest = read_manifest(folder)
    entries = _candidates(folder, manifest, file=file, engine=engine)
    verify_files(folder, manifest, [TOKENIZER_NAME])
    max_tokens = _max_tokens(folder, manifest, config)
    _check_cache(folder, manifest, config)
    tokenizer = Tokenizer(
        folder / TOKENIZER_NAME,
        spec=manifest.tokenizer,
        max_tokens=max_tokens,
        include_prompt=manifest.pooling.include_prompt,
        prompt_marks=manifest.pooling.prompt_marks,
    )
    first_batch = _make_first_batch(folder, tokenizer)
    skipped: list[str] = []
    for entry in entries:
        try:
            backend = _find_backend(entry, manifest, is_named=bool(file or engine))
            _verify_engine(folder, manifest, entry)
            loaded = _load(backend, folder, manifest, entry, config)
            _try_out(loaded, first_batch, manifest)
        except _CannotRunError as reason:
            skipped.append(f"{entry.backend} ({entry.file}): {reason}")
            continue
        sizes = [config.max_batch_tokens or backend.max_batch_tokens, entry.max_batch_tokens]
        return LoadedBundle(
            folder=folder,
            manifest=msgspec.structs.replace(manifest, max_tokens=max_tokens),
            tokenizer=tokenizer,
            entry=entry,
            engine=loaded,
            skipped=tuple(skipped),
            max_batch_tokens=min(size for size in sizes if size is not None),
        )
    raise NoEngineError(f"{folder}: no engine can run here: {'; '.join(skipped)}")


def _max_tokens(folder: Path, manifest: Manifest, config: RuntimeConfig) -> int:
    """Return the length of the longest text that is read: the model's, or a shorter one."""
    wanted = config.max_model_len
    if wanted is not None and wanted > manifest.max_tokens:
        raise InputError(
            f"max_model_len={wanted} is above the {manifest.max_tokens} tokens that {folder} takes",
            param="max_model_len",
        )
    return wanted or manifest.max_tokens


def _check_cache(folder: Path, manifest: Manifest, config: RuntimeConfig) -> None:
    """Refuse a result cache without room for anything."""
    smallest = smallest_cache(manifest.dimensions.native)
    if 0 < config.max_cache_bytes < smallest:
        raise InputError(
            f"max_cache_bytes={config.max_cache_bytes} has no room: one vector of {folder} takes"
            f" at least {smallest} bytes; give many times that, or 0 to keep none",
            param="max_cache_bytes",
        )


class _CannotRunError(Exception):
    """An engine cannot run here, though nothing is wrong with the bundle."""


def _candidates(
    folder: Path, manifest: Manifest, *, file: str | None, engine: str | None
) -> list[EngineEntry]:
    """List the engines that were asked for, best first."""
    found = [
        entry
        for entry in manifest.engines
        if file in (None, entry.file) and engine in (None, entry.backend)
    ]
    if not found:
        wanted = " ".join(filter(None, (engine, file and f"({file})")))
        raise BundleError(
            f"{folder}: no engine {wanted or 'at all'}; it has {_list_engines(manifest.engines)}"
        )
    return found


def _list_engines(entries: Iterable[EngineEntry]) -> str:
    return ", ".join(f"{entry.backend} ({entry.file})" for entry in entries) or "none"


def _find_backend(entry: EngineEntry, manifest: Manifest, *, is_named: bool) -> Backend:
    """Import an engine's backend, and ask whether it can run here."""
    if not entry.certified and not is_named:
        raise _CannotRunError("no certificate covers it; run embed-export --verify, or name it")
    try:
        backend = get_backend(entry.backend)
    except BundleError as error:
        raise _CannotRunError(str(error)) from error
    available = backend.probe()
    if not available.can_run:
        raise _CannotRunError(available.reason)
    # A graph runs under any version of its library; what was compiled from it only under its own.
    is_graph = any(entry.file in graph.files for graph in manifest.graphs)
    if not is_graph and entry.producer != available.producer:
        raise _CannotRunError(
            f"built by {entry.producer}, here is {available.producer}; export the model again here"
        )
    return backend


def _verify_engine(folder: Path, manifest: Manifest, entry: EngineEntry) -> None:
    """Check an engine's bytes and origin, before any of them is looked at."""
    expected = fingerprint(entry, graphs=manifest.graphs, files=manifest.files)
    if entry.fingerprint != expected:
        raise BundleError(
            f"{folder}: the fingerprint of engine {entry.backend} ({entry.file}) does not match"
            " its files and origin; export the model again"
        )
    verify_files(folder, manifest, entry.files)


def _load(
    backend: Backend, folder: Path, manifest: Manifest, entry: EngineEntry, config: RuntimeConfig
) -> Engine:
    spec = LoadSpec(
        folder=folder,
        manifest=manifest,
        entry=entry,
        num_threads=config.num_threads,
        num_streams=config.num_streams,
    )
    try:
        return backend.load(spec)
    except (BundleError, EngineError) as error:
        raise _CannotRunError(str(error)) from error


def _make_first_batch(folder: Path, tokenizer: Tokenizer) -> Batch:
    """Make a batch of one short text."""
    try:
        [item] = tokenizer.encode(EmbedRequest(inputs=["a"]))
    except InputError as error:
        raise BundleError(
            f"{folder}: the tokenizer does not fit the manifest: {error}; export the model again"
        ) from error
    return collate([Row[None](item, "embedding", [None])])


def _try_out(engine: Engine, batch: Batch, manifest: Manifest) -> None:
    """Run one text: the first run is slow, and shows whether the manifest's sizes are true."""
    try:
        shape = engine.run(batch)["embedding"].shape
    except Exception as error:
        engine.close()
        raise _CannotRunError(f"failed on its first text: {error}") from error
    if shape != (1, manifest.dimensions.native):
        engine.close()
        raise BundleError(
            f"the engine gives vectors of shape {shape} for one text, and the manifest says"
            f" {manifest.dimensions.native} dimensions; export the model again"
        )
