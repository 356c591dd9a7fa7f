"""Manifests that are none, that lie, or that lead out of the bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embed_export.verify import verify_bundle
from embed_runtime import BundleError, Runtime
from embed_runtime.bundle import read_manifest, write_manifest
from embed_runtime.manifest import Manifest

Opener = Callable[[Path], object]
Refuse = Callable[[Opener, Path], str]
Edit = Callable[[dict[str, Any]], None]
EditManifest = Callable[[Path, Edit], None]

PATHS_OUT = [
    "../outside",
    "graphs/../../outside",
    "/etc/hostname",
    "..",
    ".",
    "",
    "./tokenizer.json",
    "graphs//packed.onnx",
    "graphs/./packed.onnx",
    "..\\outside",
    "C:/outside",
    "tokenizer.json\0",
]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{",
        "{}".encode("utf-16"),
        b"\0" * 100,
        b'{"schema_version": 1}',
        b'{"schema_version": "1"}',
        b'{"schema_version": 1.5}',
        b'{"schema_version": 99999999999999999999}',
        b"[" * 1_000_000,
        b'{"schema_version": 1, "model": ' + b'{"id":' * 500_000,
        b'{"schema_version": 1, "later": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"schema_version": 1, "model": "' + b"x" * (1 << 24) + b'"}',
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_manifest(
    bundle: Path, open_bundle: Opener, content: bytes, refuse: Refuse
) -> None:
    (bundle / "manifest.json").write_bytes(content)
    assert "manifest.json" in refuse(open_bundle, bundle)


def test_a_manifest_cut_short_anywhere(bundle: Path, open_bundle: Opener, refuse: Refuse) -> None:
    path = bundle / "manifest.json"
    content = path.read_bytes().rstrip()
    for keep in range(0, len(content), 97):
        path.write_bytes(content[:keep])
        assert "manifest.json" in refuse(open_bundle, bundle)


def test_a_manifest_changed_anywhere_is_refused_or_harmless(bundle: Path) -> None:
    path = bundle / "manifest.json"
    content = path.read_bytes()
    num_refused = 0
    for position in range(0, len(content), 23):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            Runtime(bundle).close()
        except BundleError:
            num_refused += 1
    assert num_refused > 20


def test_a_missing_manifest(bundle: Path, open_bundle: Opener, refuse: Refuse) -> None:
    (bundle / "manifest.json").unlink()
    assert "not a bundle" in refuse(open_bundle, bundle)


def _set(*keys: str | int, to: object) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_set("schema_version", to=0), "schema version 0"),
        (_set("schema_version", to=2), "schema version 2"),
        (_set("later", to=1), "later"),
        (_set("model", "later", to=1), "later"),
        (_set("engines", 0, "later", to=1), "later"),
        (_set("files", "tokenizer.json", "later", to=1), "later"),
        (_set("precision", to="fp64"), "fp64"),
        (_set("pooling", "modes", to=["median"]), "median"),
        (_set("pooling", "modes", to=[]), "pooling"),
        (_set("dimensions", "native", to=31), "31"),
        (_set("dimensions", "native", to=0), "native"),
        (_set("dimensions", "native", to=-32), "native"),
        (_set("dimensions", "native", to=1 << 40), "native"),
        (_set("dimensions", "native", to="32"), "native"),
        (_set("dimensions", "matryoshka", to=[64]), "64"),
        (_set("hidden_size", to=64), "32"),
        (_set("max_tokens", to=0), "max_tokens"),
        (_set("max_tokens", to=64.5), "max_tokens"),
        (_set("default_prompt", to="none"), "none"),
        (_set("outputs", to=[]), "embedding"),
        (_set("engines", to=[]), "no engine"),
        (_set("engines", 0, "file", to="model.plan"), "model.plan"),
        (_set("engines", 0, "files", to=[]), "graphs/packed.onnx"),
        (_set("engines", 0, "fingerprint", to="f" * 64), "fingerprint"),
        (_set("engines", 0, "fingerprint", to="F"), "fingerprint"),
        (_set("engines", 0, "precision", to="int8"), "fingerprint"),
        (_set("engines", 0, "targets", to=["8.9"]), "fingerprint"),
        (_set("engines", 0, "max_batch_tokens", to=0), "0 tokens in one batch"),
        (_set("graphs", 0, "files", to=["graphs/other.onnx"]), "graphs/other.onnx"),
        (_set("tokenizer", "vocab_size", to=0), "vocab_size"),
        (_set("tokenizer", "num_special_tokens", to=1), "special tokens"),
        (_set("files", "tokenizer.json", "sha256", to="0" * 64), "tokenizer.json"),
        (_set("files", "tokenizer.json", "sha256", to="x"), "SHA-256"),
        (_set("files", "tokenizer.json", "num_bytes", to=-1), "tokenizer.json"),
        (_set("files", to={}), "tokenizer.json"),
    ],
)
def test_a_manifest_that_lies(
    bundle: Path,
    open_bundle: Opener,
    edit: Edit,
    words: str,
    refuse: Refuse,
    edit_manifest: EditManifest,
) -> None:
    edit_manifest(bundle, edit)
    assert words in refuse(open_bundle, bundle)


@pytest.mark.parametrize("name", PATHS_OUT)
def test_a_file_name_that_leaves_the_bundle(
    bundle: Path, open_bundle: Opener, name: str, refuse: Refuse, edit_manifest: EditManifest
) -> None:
    (bundle.parent / "outside").write_bytes((bundle / "graphs/packed.onnx").read_bytes())

    def edit(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["graphs/packed.onnx"]
        manifest["engines"][0] |= {"file": name, "files": [name]}

    edit_manifest(bundle, edit)
    assert repr(name) in refuse(open_bundle, bundle)


@pytest.mark.parametrize(
    "name", [*PATHS_OUT[:-1], "os", "..errors", "_cores", "dummy.py", "a" * 200]
)
def test_a_backend_is_looked_up_and_never_imported(
    bundle: Path,
    open_bundle: Opener,
    name: str,
    refuse: Refuse,
    seal: Callable[[Manifest], Manifest],
) -> None:
    manifest = read_manifest(bundle)
    entry = msgspec.structs.replace(manifest.engines[0], backend=name)
    write_manifest(bundle, seal(msgspec.structs.replace(manifest, engines=(entry,))))
    assert "engine" in refuse(open_bundle, bundle)


def test_an_uncertified_engine_runs_only_when_named(
    bundle: Path, refuse: Refuse, edit_manifest: EditManifest
) -> None:
    edit_manifest(bundle, _set("engines", 0, "certified", to=False))
    assert "embed-export --verify" in refuse(Runtime, bundle)
    Runtime(bundle, engine="dummy").close()
    verify_bundle(bundle)
    Runtime(bundle).close()
