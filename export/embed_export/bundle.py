"""Puts a bundle in its place: all of it, or nothing and what was there before."""

import errno
import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from embed_export.errors import ExportError
from embed_export.hub import cached_model
from embed_export.signals import stop_signals_raise, stop_signals_wait
from embed_runtime.bundle import describe_file
from embed_runtime.manifest import CERTIFICATE_NAME, MANIFEST_NAME, File

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# Libraries report a full disk in words of their own; a disk with so little left counts as full.
_NO_SPACE_BYTES = 1 << 20


class _AnyManifest(msgspec.Struct):
    """The keys by which a manifest is known to be ours, in this version or another."""

    schema_version: int
    model: dict[str, object]
    engines: list[object]


def default_output(model_id: str) -> Path:
    """Name the folder a model's bundle goes to unless the user says otherwise.

    Raises:
        ExportError: The model's name gives no folder name.
    """
    path = Path(model_id)
    if path.is_dir():
        cached = cached_model(path)
        path = Path(cached[0]) if cached else path.resolve()
    name = path.name
    if not name:
        raise ExportError(f"cannot name a bundle after {model_id!r}; name its folder with -o")
    return Path("engines") / name


def describe_files(folder: Path) -> dict[str, File]:
    """Take size and SHA-256 of every file of a bundle, by its path relative to the folder.

    The manifest cannot hold its own digest. The certificate carries its own, so that `--verify` can
    replace both without a moment in which one contradicts the other.
    """
    left_out = {folder / MANIFEST_NAME, folder / CERTIFICATE_NAME}
    return {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in left_out
    }


def require_space(folder: Path, num_bytes: int) -> None:
    """Check that a disk has room.

    Args:
        folder: Where files will be written; it need not exist yet.
        num_bytes: How much will be written.

    Raises:
        ExportError: There is less; the message says how much is needed where.
    """
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise ExportError(
            f"{_size(num_bytes)} are needed in {existing} and {_size(free)} are free;"
            " free some space or choose another disk"
        )


def check_output(output: Path) -> None:
    """Check that a bundle may go there: to nothing yet, an empty folder, or an older bundle.

    Raises:
        ExportError: Something else is there; the message says what, and what to do.
    """
    output = Path(os.path.realpath(output))
    with _write_errors_named(output):
        if not output.exists():
            return
        remedy = "choose another place with -o, or remove it yourself"
        if not output.is_dir():
            raise ExportError(f"{output} is a file, and a bundle is a folder; {remedy}")
        if output.is_mount():
            raise ExportError(f"{output} is a mount point and stays; name a folder in it with -o")
        if any(output.iterdir()) and not _is_bundle(output):
            raise ExportError(f"{output} exists and is not a bundle, so it is left alone; {remedy}")


@contextmanager
def bundle_folder(output: Path, *, num_bytes: int = 0) -> Generator[Path, None, None]:
    """Give a temporary folder that becomes the bundle when the block ends without an error.

    It lies beside its final place, so that the last step is a rename. When the block fails, or is
    stopped by Ctrl-C, SIGTERM or SIGHUP, the folder is removed and an old bundle at `output` stays
    as it was. What a killed export left behind is removed by the next one to the same place.

    Args:
        output: Where the bundle will be: nothing yet, an empty folder, or an older bundle.
        num_bytes: How much is going to be written, as far as known.

    Yields:
        The folder to write into.

    Raises:
        ExportError: Something else is at `output`, another export is writing there, the disk is
            too small or filled up, or the place cannot be written to.
    """
    output = Path(os.path.realpath(output))
    check_output(output)
    partial = output.with_name(f".{output.name}.partial")
    with stop_signals_raise(), _parent_folders(output), _lock(output):
        try:
            with _write_errors_named(output):
                _clear_leftovers(output, partial)
                require_space(output.parent, num_bytes)
                partial.mkdir()
            yield partial
            with _write_errors_named(output):
                _sync(partial)
                _move_into_place(partial, output)
        except Exception as error:
            if not _is_disk_full(error, partial):
                raise
            num_written = _folder_bytes(partial)
            raise ExportError(
                f"the disk of {output.parent} is full: {_size(num_written)} were written,"
                f" {_size(max(num_bytes, num_written))} or more are needed;"
                " free some space or choose another folder with -o"
            ) from error
        finally:
            with stop_signals_wait():
                shutil.rmtree(partial, ignore_errors=True)


def _is_bundle(folder: Path) -> bool:
    try:
        msgspec.json.decode((folder / MANIFEST_NAME).read_bytes(), type=_AnyManifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


@contextmanager
def _parent_folders(output: Path) -> Generator[None, None, None]:
    """Make the folders above; take away again those that stay empty."""
    missing = [path for path in output.parents if not path.exists()]
    with _write_errors_named(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _lock(output: Path) -> Generator[None, None, None]:
    """Hold the right to write `output`; the system takes it back when the process dies."""
    path = output.with_name(f".{output.name}.lock")
    with _write_errors_named(output):
        descriptor = _open_locked(path, output)
    try:
        yield
    finally:
        # Removed while it is still held: see _open_locked.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, output: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ExportError(
                f"another export is writing {output}; wait for it or choose another place with -o"
            ) from error
        # Whoever held it before may have removed the name after we opened it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _clear_leftovers(output: Path, partial: Path) -> None:
    """Mend what a killed export left; only the holder of the lock writes these names."""
    previous = _previous(output)
    if previous.exists() and not output.exists():
        previous.rename(output)
    for leftover in (partial, previous):
        if leftover.exists():
            shutil.rmtree(leftover)


def _move_into_place(partial: Path, output: Path) -> None:
    # Hours may have passed since the first look.
    check_output(output)
    previous = _previous(output)
    with stop_signals_wait():
        if output.exists():
            output.rename(previous)
        try:
            partial.rename(output)
        except OSError:
            if previous.exists():
                previous.rename(output)
            raise
        _sync_folder(output.parent)
        shutil.rmtree(previous, ignore_errors=True)


def _previous(output: Path) -> Path:
    return output.with_name(f".{output.name}.previous")


def _sync(folder: Path) -> None:
    """Bring every file to the disk, so that a power cut cannot leave a renamed folder of zeros."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems cannot, and do not need it.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _write_errors_named(output: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror} ({error.filename})" if error.filename else error
        raise ExportError(
            f"cannot write {output}: {reason}; choose a writable place with -o"
        ) from error


def _is_disk_full(error: BaseException, folder: Path) -> bool:
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
            return True
        cause = cause.__cause__ or cause.__context__
    return folder.exists() and shutil.disk_usage(folder).free < _NO_SPACE_BYTES


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
