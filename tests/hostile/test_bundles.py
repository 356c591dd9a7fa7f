"""Damaged and lying bundles: each ends in one line that says what is wrong, and soon."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embed_export import measure
from embed_export.bundle import describe_files
from embed_export.errors import ParityError
from embed_export.probe import VECTORS_NAME, Reference, read_reference, write_reference
from embed_export.verify import certify, record_certificate, verify_bundle
from embed_runtime import BundleError, Runtime
from embed_runtime.bundle import fingerprint, read_manifest, write_manifest
from embed_runtime.engines import LoadSpec, dummy
from embed_runtime.types import FloatArray

# Refusing takes milliseconds; a loaded machine gets some room.
MAX_SECONDS = 5

RUNTIME_READS = ("tokenizer.json", "graphs/packed.onnx")
VERIFY_READS = (*RUNTIME_READS, "certificate.json", "reference/texts.json", "reference/vectors.npy")
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

Opener = Callable[[Path], object]
Edit = Callable[[dict[str, Any]], None]


def _open(path: Path) -> None:
    Runtime(path).close()


def _open_by_name(path: Path) -> None:
    Runtime(path, engine="dummy").close()


openers = pytest.mark.parametrize("open_bundle", [_open, verify_bundle])
readers = pytest.mark.parametrize(
    ("open_bundle", "name"),
    [
        *((_open, name) for name in RUNTIME_READS),
        *((verify_bundle, name) for name in VERIFY_READS),
    ],
)


@pytest.fixture(autouse=True)
def short_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MAX_SPEED_TEXTS", 4)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def bundle(shelf: Path, dummy_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A healthy bundle, proven like an exported one, that the test may damage."""
    healthy = shelf / "healthy"
    if not healthy.exists():
        shutil.copytree(_prove(dummy_bundle()), healthy)
    return Path(shutil.copytree(healthy, tmp_path / "bundle"))


def _prove(folder: Path) -> Path:
    """Give the bundle a reference and a certificate."""
    texts = ("", "a text", "another one", "long " * 100)
    with Runtime(folder) as runtime:
        vectors = runtime.embed(texts, prompt="")
    write_reference(folder, Reference(texts=texts, vectors=vectors, max_activation=1))
    _describe_again(folder)
    manifest = read_manifest(folder)
    record_certificate(folder, manifest, certify(folder, manifest, read_reference(folder)))
    return folder


def _describe_again(folder: Path) -> None:
    """Make the manifest agree with the files, as someone who means harm would."""
    manifest = msgspec.structs.replace(read_manifest(folder), files=describe_files(folder))
    engines = tuple(
        msgspec.structs.replace(
            entry, fingerprint=fingerprint(entry, graphs=manifest.graphs, files=manifest.files)
        )
        for entry in manifest.engines
    )
    write_manifest(folder, msgspec.structs.replace(manifest, engines=engines))


def _edit(folder: Path, edit: Edit) -> None:
    """Change the manifest behind the back of the code that checks it."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def _refuse(open_bundle: Opener, path: Path) -> str:
    """Expect a refusal; returns its words."""
    start = time.monotonic()
    with pytest.raises((BundleError, ParityError)) as caught:
        open_bundle(path)
    assert time.monotonic() - start < MAX_SECONDS
    words = str(caught.value)
    assert "\n" not in words
    assert len(words) < 1000
    return words


@openers
def test_the_healthy_bundle_opens(bundle: Path, open_bundle: Opener) -> None:
    open_bundle(bundle)


# Files.


@readers
def test_a_changed_byte(bundle: Path, open_bundle: Opener, name: str) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert path.name in _refuse(open_bundle, bundle)


@readers
def test_a_missing_file(bundle: Path, open_bundle: Opener, name: str) -> None:
    (bundle / name).unlink()
    assert "No such file" in _refuse(open_bundle, bundle)


@readers
@pytest.mark.parametrize("keep", [0, 5])
def test_a_file_cut_short(bundle: Path, open_bundle: Opener, name: str, keep: int) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:keep])
    assert Path(name).name in _refuse(open_bundle, bundle)


@readers
def test_a_folder_in_place_of_a_file(bundle: Path, open_bundle: Opener, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    assert Path(name).name in _refuse(open_bundle, bundle)


@openers
@pytest.mark.parametrize("name", RUNTIME_READS)
def test_a_link_out_of_the_bundle(
    bundle: Path, open_bundle: Opener, name: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    shutil.move(bundle / name, outside)
    (bundle / name).symlink_to(outside)
    assert "leads out of the bundle" in _refuse(open_bundle, bundle)


@readers
def test_a_link_to_itself(bundle: Path, open_bundle: Opener, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).symlink_to(bundle / name)
    assert Path(name).name in _refuse(open_bundle, bundle)


@openers
def test_a_folder_linked_out_of_the_bundle(
    bundle: Path, open_bundle: Opener, tmp_path: Path
) -> None:
    shutil.move(bundle / "graphs", tmp_path / "graphs")
    (bundle / "graphs").symlink_to(tmp_path / "graphs")
    assert "leads out of the bundle" in _refuse(open_bundle, bundle)


@openers
def test_a_bundle_behind_a_link_opens(bundle: Path, open_bundle: Opener, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(bundle)
    open_bundle(link)


# The manifest as a file.


@openers
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
def test_what_is_no_manifest(bundle: Path, open_bundle: Opener, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    assert "manifest.json" in _refuse(open_bundle, bundle)


@openers
def test_a_manifest_cut_short_anywhere(bundle: Path, open_bundle: Opener) -> None:
    path = bundle / "manifest.json"
    content = path.read_bytes().rstrip()
    for keep in range(0, len(content), 97):
        path.write_bytes(content[:keep])
        assert "manifest.json" in _refuse(open_bundle, bundle)


def test_a_manifest_changed_anywhere_is_refused_or_harmless(bundle: Path) -> None:
    path = bundle / "manifest.json"
    content = path.read_bytes()
    num_refused = 0
    for position in range(0, len(content), 23):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            _open(bundle)
        except BundleError:
            num_refused += 1
    assert num_refused > 20


@openers
def test_a_missing_manifest(bundle: Path, open_bundle: Opener) -> None:
    (bundle / "manifest.json").unlink()
    assert "not a bundle" in _refuse(open_bundle, bundle)


@openers
def test_an_empty_folder(tmp_path: Path, open_bundle: Opener) -> None:
    (tmp_path / "empty").mkdir()
    assert "not a bundle" in _refuse(open_bundle, tmp_path / "empty")


@openers
def test_nothing_at_all(tmp_path: Path, open_bundle: Opener) -> None:
    assert "no such file or folder" in _refuse(open_bundle, tmp_path / "nothing")


@openers
def test_a_lone_plan(tmp_path: Path, open_bundle: Opener) -> None:
    (tmp_path / "model.plan").write_bytes(b"who knows what")
    assert "in no bundle" in _refuse(open_bundle, tmp_path / "model.plan")


# What the manifest says.


def _set(*keys: str | int, to: object) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to

    return edit


@openers
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
def test_a_manifest_that_lies(bundle: Path, open_bundle: Opener, edit: Edit, words: str) -> None:
    _edit(bundle, edit)
    assert words in _refuse(open_bundle, bundle)


@openers
@pytest.mark.parametrize("name", PATHS_OUT)
def test_a_file_name_that_leaves_the_bundle(bundle: Path, open_bundle: Opener, name: str) -> None:
    (bundle.parent / "outside").write_bytes((bundle / "graphs/packed.onnx").read_bytes())

    def edit(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["graphs/packed.onnx"]
        manifest["engines"][0] |= {"file": name, "files": [name]}

    _edit(bundle, edit)
    assert repr(name) in _refuse(open_bundle, bundle)


@openers
@pytest.mark.parametrize(
    "name", [*PATHS_OUT[:-1], "os", "..errors", "_cores", "dummy.py", "a" * 200]
)
def test_a_backend_is_looked_up_and_never_imported(
    bundle: Path, open_bundle: Opener, name: str
) -> None:
    manifest = read_manifest(bundle)
    entry = msgspec.structs.replace(manifest.engines[0], backend=name)
    sha256 = fingerprint(entry, graphs=manifest.graphs, files=manifest.files)
    entry = msgspec.structs.replace(entry, fingerprint=sha256)
    write_manifest(bundle, msgspec.structs.replace(manifest, engines=(entry,)))
    assert "engine" in _refuse(open_bundle, bundle)


# Content that fits its digest.


@openers
@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"version": "1.0", "model": {}}'])
def test_a_tokenizer_that_is_none(bundle: Path, open_bundle: Opener, content: str) -> None:
    (bundle / "tokenizer.json").write_text(content)
    _describe_again(bundle)
    assert "tokenizer.json" in _refuse(open_bundle, bundle)


@openers
def test_a_graph_of_another_size(
    bundle: Path, open_bundle: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(spec: LoadSpec) -> dummy.DummyEngine:
        return dummy.DummyEngine(dimensions=16, hidden_size=16, normalize=True)

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    words = _refuse(open_bundle, bundle)
    assert "16" in words
    assert "32 dimensions" in words


def _plan(bundle: Path, **fields: object) -> None:
    """Turn the bundle's engine into a plan of the dummy library, or of the one named."""
    (bundle / "model.plan").write_bytes(b"opaque")
    manifest = msgspec.structs.replace(read_manifest(bundle), files=describe_files(bundle))
    entry = msgspec.structs.replace(
        manifest.engines[0], file="model.plan", files=("model.plan",), **fields
    )
    write_manifest(bundle, msgspec.structs.replace(manifest, engines=(entry,)))
    _describe_again(bundle)


@openers
def test_a_plan_of_another_version(bundle: Path, open_bundle: Opener) -> None:
    _plan(bundle, producer="dummy 2")
    words = _refuse(open_bundle, bundle)
    assert "built by dummy 2, here is dummy 1" in words


@pytest.mark.parametrize("open_bundle", [_open, verify_bundle])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_a_plan_of_a_library_that_is_not_usable_here(
    bundle: Path, open_bundle: Opener, backend: str
) -> None:
    _plan(bundle, backend=backend, producer=f"{backend} 0.0.0", device="cuda", targets=("1.0",))
    assert backend in _refuse(open_bundle, bundle)


@openers
def test_a_plan_of_another_gpu(
    bundle: Path, open_bundle: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(spec: LoadSpec) -> dummy.DummyEngine:
        raise BundleError(f"built for compute capability {spec.entry.targets[0]}, here is 9.0")

    monkeypatch.setattr(dummy, "BACKEND", replace(dummy.BACKEND, load=load))
    _plan(bundle, targets=("8.9",))
    assert "built for compute capability 8.9, here is 9.0" in _refuse(open_bundle, bundle)


def test_an_uncertified_engine_runs_only_when_named(bundle: Path) -> None:
    _edit(bundle, _set("engines", 0, "certified", to=False))
    assert "embed-export --verify" in _refuse(_open, bundle)
    _open_by_name(bundle)
    verify_bundle(bundle)
    _open(bundle)


# The reference.


def test_a_reference_that_is_not_listed(bundle: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        del manifest["files"][VECTORS_NAME]

    _edit(bundle, edit)
    assert VECTORS_NAME in _refuse(verify_bundle, bundle)


def _object_array(path: Path) -> None:
    np.save(path, np.array([[{}]] * 4, dtype=object), allow_pickle=True)


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, np.zeros((4, 32), np.float32))


def _other_size(path: Path) -> None:
    np.save(path, np.ones((4, 31), np.float32))


def _other_count(path: Path) -> None:
    np.save(path, np.ones((3, 32), np.float32))


def _no_array(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{")


@pytest.mark.parametrize(
    "write",
    [_object_array, _archive, _other_size, _other_count, _no_array],
    ids=lambda w: w.__name__,
)
def test_a_reference_that_is_none(bundle: Path, write: Callable[[Path], None]) -> None:
    write(bundle / VECTORS_NAME)
    _describe_again(bundle)
    assert "reference" in _refuse(verify_bundle, bundle)


def test_a_reference_of_other_vectors(bundle: Path) -> None:
    vectors: FloatArray = np.ones((4, 32), np.float32)
    np.save(bundle / VECTORS_NAME, vectors)
    _describe_again(bundle)
    assert "smallest cosine" in _refuse(verify_bundle, bundle)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"texts": "abcd", "max_activation": 1, "versions": {}}',
        '{"texts": [1, 2, 3, 4], "max_activation": 1, "versions": {}}',
        '{"texts": ["a"], "max_activation": 1, "versions": {}}',
        '{"texts": ["\\ud800", "b", "c", "d"], "max_activation": 1, "versions": {}}',
        '{"texts": ' + "[" * 100_000,
    ],
    ids=lambda content: content[:40],
)
def test_texts_that_are_none(bundle: Path, content: str) -> None:
    (bundle / "reference" / "texts.json").write_text(content)
    _describe_again(bundle)
    assert "reference" in _refuse(verify_bundle, bundle)
