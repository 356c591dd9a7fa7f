"""A proven bundle to damage, what opens it, and the one line that must refuse it."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embed_export.bundle import describe_files
from embed_export.errors import ParityError
from embed_export.probe import Reference, read_reference, write_reference
from embed_export.verify import certify, record_certificate, verify_bundle
from embed_runtime import BundleError, Runtime
from embed_runtime.bundle import read_manifest, write_manifest
from embed_runtime.manifest import Manifest

# Refusing takes milliseconds; a loaded machine gets some room.
MAX_SECONDS = 5

Opener = Callable[[Path], object]
Edit = Callable[[dict[str, Any]], None]


def _open(path: Path) -> None:
    Runtime(path).close()


OPENERS: dict[str, Opener] = {"runtime": _open, "verify": verify_bundle}


@pytest.fixture(params=OPENERS)
def open_bundle(request: pytest.FixtureRequest) -> Opener:
    """Opens a bundle: the runtime, then `embed-export --verify`."""
    return OPENERS[request.param]


@pytest.fixture(scope="module", autouse=True)
def timing(short_timing: None) -> None:
    """Time engines on a few texts only, in every test here."""


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def bundle(
    shelf: Path,
    dummy_bundle: Callable[..., Path],
    describe_again: Callable[[Path], None],
    tmp_path: Path,
) -> Path:
    """A healthy bundle, proven like an exported one, that the test may damage."""
    healthy = shelf / "healthy"
    if not healthy.exists():
        folder = dummy_bundle()
        _write_reference(folder)
        describe_again(folder)
        manifest = read_manifest(folder)
        record_certificate(folder, manifest, certify(folder, manifest, read_reference(folder)))
        shutil.copytree(folder, healthy)
    return Path(shutil.copytree(healthy, tmp_path / "bundle"))


def _write_reference(folder: Path) -> None:
    texts = ("", "a text", "another one", "long " * 100)
    with Runtime(folder) as runtime:
        vectors = runtime.embed(texts, prompt="")
    write_reference(folder, Reference(texts=texts, vectors=vectors, max_activation=1))


@pytest.fixture(scope="session")
def describe_again(seal: Callable[[Manifest], Manifest]) -> Callable[[Path], None]:
    """Makes a manifest agree with the files, as someone who means harm would."""

    def describe_again(folder: Path) -> None:
        manifest = msgspec.structs.replace(read_manifest(folder), files=describe_files(folder))
        write_manifest(folder, seal(manifest))

    return describe_again


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[[Path, Edit], None]:
    """Changes a manifest behind the back of the code that checks it."""

    def edit_manifest(folder: Path, edit: Edit) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_bytes())
        edit(manifest)
        path.write_text(json.dumps(manifest))

    return edit_manifest


@pytest.fixture(scope="session")
def refuse() -> Callable[[Opener, Path], str]:
    """Expects that what is opened is refused, and soon; gives the line that says why."""

    def refuse(open_bundle: Opener, path: Path) -> str:
        start = time.monotonic()
        with pytest.raises((BundleError, ParityError)) as caught:
            open_bundle(path)
        assert time.monotonic() - start < MAX_SECONDS
        words = str(caught.value)
        assert "\n" not in words
        assert len(words) < 1000
        return words

    return refuse
