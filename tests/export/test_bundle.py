"""A bundle appears whole or not at all, whatever stops the export."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from embed_export.bundle import bundle_folder, default_output, describe_files, require_space
from embed_export.errors import ExportError
from embed_runtime.bundle import describe_file

# Another process that gets as far as writing, says so, and waits to be stopped.
_WRITER = """
import sys, time
from pathlib import Path
from embed_export.bundle import bundle_folder
with bundle_folder(Path(sys.argv[1])) as folder:
    (folder / "weights.bin").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def _manifest(marker: str) -> str:
    return f'{{"schema_version": 1, "model": {{"id": "{marker}"}}, "engines": []}}'


def _write(folder: Path, marker: str) -> None:
    (folder / "manifest.json").write_text(_manifest(marker))
    (folder / "graphs").mkdir()
    (folder / "graphs" / "packed.onnx").write_bytes(marker.encode())


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _export(
    output: Path, error: BaseException | None = None, *, num_bytes: int = 0, marker: str = "new"
) -> None:
    """Export a bundle, as far as an error."""
    with bundle_folder(output, num_bytes=num_bytes) as folder:
        _write(folder, marker)
        if error:
            raise error


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "engines" / "model"


@pytest.fixture
def old_bundle(output: Path) -> Path:
    output.mkdir(parents=True)
    _write(output, "old")
    return output


def _is_bundle_of(output: Path, marker: str) -> bool:
    return (
        (output / "manifest.json").read_text() == _manifest(marker)
        and (output / "graphs" / "packed.onnx").read_bytes() == marker.encode()
        and _names(output.parent) == [output.name]
    )


@pytest.fixture
def writer(output: Path) -> Callable[[], "subprocess.Popen[str]"]:
    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        return process

    return start


def test_writes_a_new_bundle(output: Path) -> None:
    with bundle_folder(output) as folder:
        assert folder.parent == output.parent
        _write(folder, "new")
        assert not output.exists()
    assert _is_bundle_of(output, "new")


def test_replaces_an_old_bundle(old_bundle: Path) -> None:
    with bundle_folder(old_bundle) as folder:
        _write(folder, "new")
        assert (old_bundle / "manifest.json").read_text() == _manifest("old")
    assert _is_bundle_of(old_bundle, "new")


def test_fills_an_empty_folder(output: Path) -> None:
    output.mkdir(parents=True)
    with bundle_folder(output) as folder:
        _write(folder, "new")
    assert _is_bundle_of(output, "new")


def test_follows_a_link_to_the_old_bundle(old_bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(old_bundle)
    with bundle_folder(link) as folder:
        _write(folder, "new")
    assert link.is_symlink()
    assert _is_bundle_of(old_bundle, "new")


@pytest.mark.parametrize("error", [RuntimeError("engine"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_nothing(output: Path, tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        _export(output, error)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("engine"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_bundle(old_bundle: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        _export(old_bundle, error)
    assert _is_bundle_of(old_bundle, "old")


def test_a_rename_that_fails_brings_the_old_bundle_back(
    old_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(ExportError, match=r"cannot write .*Input/output error"):
        _export(old_bundle)
    assert _is_bundle_of(old_bundle, "old")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_leaves_nothing(
    writer: Callable[[], "subprocess.Popen[str]"], output: Path, tmp_path: Path, number: int
) -> None:
    process = writer()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not output.exists()
    assert _names(tmp_path) == []


def test_a_stop_signal_during_the_last_step_waits_for_its_end(
    old_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if self == old_bundle:
            signal.raise_signal(signal.SIGINT)
        return renamed

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _export(old_bundle)
    assert _is_bundle_of(old_bundle, "new")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_works_beside_the_main_thread(output: Path) -> None:
    def export() -> None:
        with bundle_folder(output) as folder:
            _write(folder, "new")

    thread = threading.Thread(target=export)
    thread.start()
    thread.join()
    assert _is_bundle_of(output, "new")


def test_the_next_export_clears_up_after_a_killed_one(
    writer: Callable[[], "subprocess.Popen[str]"], old_bundle: Path
) -> None:
    process = writer()
    process.kill()
    process.communicate(timeout=30)
    assert len(_names(old_bundle.parent)) > 1
    with bundle_folder(old_bundle) as folder:
        assert _names(folder) == []
        _write(folder, "new")
    assert _is_bundle_of(old_bundle, "new")


def test_a_bundle_set_aside_by_a_killed_export_comes_back(old_bundle: Path) -> None:
    # As kill -9 between the two renames leaves it.
    old_bundle.rename(old_bundle.with_name(f".{old_bundle.name}.previous"))
    with pytest.raises(RuntimeError), bundle_folder(old_bundle):
        raise RuntimeError
    assert _is_bundle_of(old_bundle, "old")


def test_a_second_export_to_the_same_place_is_refused(
    writer: Callable[[], "subprocess.Popen[str]"], output: Path
) -> None:
    process = writer()
    with pytest.raises(ExportError, match=r"another export is writing .*model"):
        _export(output)
    process.communicate(timeout=30)  # Its input ends, and with it its work.
    assert process.returncode == 0
    assert (output / "weights.bin").read_bytes() == b"half"
    assert _names(output.parent) == [output.name]


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"schema_version": 1}', "[" * 100_000])
def test_leaves_a_folder_that_is_no_bundle_alone(output: Path, manifest: str) -> None:
    output.mkdir(parents=True)
    (output / "manifest.json").write_text(manifest)
    with pytest.raises(ExportError, match=r"is not a bundle.*-o"):
        _export(output, AssertionError("work was begun"))
    assert (output / "manifest.json").read_text() == manifest


def test_leaves_a_file_alone(tmp_path: Path) -> None:
    output = tmp_path / "notes.txt"
    output.write_text("mine")
    with pytest.raises(ExportError, match="is a file"):
        _export(output, AssertionError("work was begun"))
    assert output.read_text() == "mine"


def test_looks_again_before_it_replaces(output: Path) -> None:
    def export_while_someone_writes() -> None:
        with bundle_folder(output):
            output.mkdir()
            (output / "thesis.tex").write_text("mine")

    with pytest.raises(ExportError, match="is not a bundle"):
        export_while_someone_writes()
    assert _names(output) == ["thesis.tex"]
    assert _names(output.parent) == [output.name]


def test_names_a_place_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write .*/file/model: .*/file\)"):
        _export(tmp_path / "file" / "model", AssertionError("work was begun"))


def test_refuses_when_the_disk_is_too_small(output: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"1000000000.00 GB are needed in .* free"):
        _export(output, AssertionError("work was begun"), num_bytes=10**18)
    assert _names(tmp_path) == []
    require_space(output, 0)


def test_a_disk_that_fills_up_is_said_in_one_line(old_bundle: Path) -> None:
    # A device that is always full, behind a library's own words for it.
    with pytest.raises(OSError, match="No space") as full:
        Path("/dev/full").write_bytes(b"x")
    failure = RuntimeError("could not save the model")
    failure.__cause__ = full.value
    with pytest.raises(ExportError) as caught:
        _export(old_bundle, failure, num_bytes=2_000_000)
    assert "is full" in str(caught.value)
    assert "2.0 MB or more are needed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _is_bundle_of(old_bundle, "old")


def test_an_error_of_the_block_stays_itself(output: Path) -> None:
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        _export(output, FileNotFoundError("checkpoint"))


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "engines/all-MiniLM-L6-v2"),
        ("all-MiniLM-L6-v2", "engines/all-MiniLM-L6-v2"),
        ("/models/bge/", "engines/bge"),
    ],
)
def test_names_the_bundle_after_the_model(model: str, folder: str) -> None:
    assert default_output(model) == Path(folder)


def test_names_the_bundle_after_the_folder_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_output(".") == Path("engines") / tmp_path.name


def test_a_model_without_a_name_needs_a_place() -> None:
    with pytest.raises(ExportError, match="-o"):
        default_output("/")


def test_describes_every_file_but_the_two_that_describe_themselves(tmp_path: Path) -> None:
    _write(tmp_path, "new")
    (tmp_path / "certificate.json").write_text("{}")
    (tmp_path / "graphs" / "manifest.json").write_text("{}")
    assert describe_files(tmp_path) == {
        name: describe_file(tmp_path / name)
        for name in ("graphs/manifest.json", "graphs/packed.onnx")
    }
