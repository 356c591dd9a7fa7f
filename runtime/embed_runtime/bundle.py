"""A bundle's folder: found, its manifest read strictly and written whole, its files held to it."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from embed_runtime.errors import BundleError
from embed_runtime.manifest import MANIFEST_NAME, SCHEMA_VERSION, EngineEntry, File, Graph, Manifest
from embed_runtime.manifest_rules import find_problems

MAX_MANIFEST_BYTES = 1 << 24


class _Version(msgspec.Struct):
    """The one field that is read before anything else is believed."""

    schema_version: int


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a bundle; no other file is opened.

    Raises:
        BundleError: It is missing, damaged, of another schema, or contradicts itself.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes, not a manifest")
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(text, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version}, this release reads {SCHEMA_VERSION};"
                " export the model again or install the release that wrote it"
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not a valid manifest: {error}") from error
    _check(manifest, path)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a bundle, in the form `read_manifest` takes.

    Raises:
        BundleError: The manifest contradicts itself, so no reader would take it.
    """
    path = folder / MANIFEST_NAME
    _check(manifest, path)
    replace_file(path, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole: readers, and a machine that stops half-way, see the old or the new."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def describe_file(path: Path) -> File:
    """Measure and hash one file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return File(num_bytes=stream.tell(), sha256=digest)


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Check that files of a bundle are the very bytes the manifest speaks of.

    Raises:
        BundleError: A file is not in the manifest, is missing, lies elsewhere or was changed.
    """
    root = os.path.realpath(folder)
    for name in names:
        expected = manifest.files.get(name)
        if expected is None:
            raise BundleError(f"{folder}: the manifest lists no file {name!r}")
        path = folder / name
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise BundleError(f"{path}: a link that leads out of the bundle; copy the file itself")
        try:
            # The size first: a file cut short is told without hashing gigabytes.
            num_bytes = path.stat().st_size
            intact = num_bytes == expected.num_bytes and describe_file(path) == expected
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        if not intact:
            raise BundleError(
                f"{path}: not the file the manifest describes ({num_bytes} bytes, expected"
                f" {expected.num_bytes} with SHA-256 {expected.sha256[:12]}...);"
                " copy or export the bundle again"
            )


def fingerprint(entry: EngineEntry, *, graphs: Sequence[Graph], files: Mapping[str, File]) -> str:
    """Hash all that decides what an engine computes: where two agree, so do their vectors.

    Covers the bytes of the engine and of its graph, the library that built it, and what for;
    not the measurements (`tokens_per_second`, `certified`) and not `entry.fingerprint` itself.
    """
    names = {*entry.files}
    for graph in graphs:
        if graph.dialect == entry.dialect:
            names.update(graph.files)
    facts = [
        entry.backend, entry.dialect, entry.precision, entry.device, entry.producer,
        list(entry.targets), [(name, files[name].sha256) for name in sorted(names)],
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def locate_bundle(path: Path) -> tuple[Path, str | None]:
    """Find the bundle a path means: its folder, or one engine file in it.

    Returns:
        The folder, and the name of the engine file as the manifest spells it where one was named.

    Raises:
        BundleError: There is nothing there, or it is not a bundle.
    """
    try:
        return _locate(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{str(path)!r:.200}: cannot be looked at: {error}") from error


def _locate(path: Path) -> tuple[Path, str | None]:
    if path.is_dir():
        if (path / MANIFEST_NAME).is_file():
            return path, None
        if (path / "config.json").is_file():
            raise BundleError(
                f"{path} is a checkpoint, not a bundle; compile it first: embed-export {path}"
            )
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST_NAME}; embed-export writes bundles"
        )
    if not path.is_file():
        raise BundleError(f"{path}: no such file or folder; give a bundle that embed-export wrote")
    for folder in list(path.absolute().parents)[:3]:
        if (folder / MANIFEST_NAME).is_file():
            name = path.absolute().relative_to(folder).as_posix()
            return folder, None if name == MANIFEST_NAME else name
    raise BundleError(f"{path} is in no bundle: no {MANIFEST_NAME} beside or above it")


def _check(manifest: Manifest, path: Path) -> None:
    """Refuse a manifest that contradicts itself, with its first contradiction."""
    for problem in find_problems(manifest):
        raise BundleError(f"{path}: {problem}; export the model again")
