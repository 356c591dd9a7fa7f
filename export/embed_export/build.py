"""Builds one engine in a child process that exits: builders keep memory and may crash.

The parent writes a `Job` to the child's standard input and reads a `BuiltEngine` from its standard
output; whatever libraries print goes to standard error and is shown only when the build fails.
"""

import contextlib
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from embed_export.errors import ExportError
from embed_runtime.engines import BuildSpec, BuiltEngine, get_backend
from embed_runtime.errors import EmbedError

# How the child ends when the backend said what is wrong, in one line on standard error.
_REFUSED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    backend: str
    spec: BuildSpec


def build_engine(backend: str, spec: BuildSpec) -> BuiltEngine:
    """Build an engine into the bundle that is being written.

    Raises:
        ExportError: The backend refused the graph, or its library crashed.
    """
    job = msgspec.json.encode(_Job(backend=backend, spec=spec), enc_hook=str)
    child = subprocess.run(
        [sys.executable, "-m", "embed_export.build"], input=job, capture_output=True, check=False
    )
    said = child.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
    if child.returncode == _REFUSED:
        raise ExportError(f"building the {backend} engine: {said[-1]}")
    if child.returncode != 0:
        raise ExportError(
            f"building the {backend} engine: the builder ended with status {child.returncode} and"
            f" said {said[-1]!r}; leave this engine out, or try a smaller --max-length"
        )
    return msgspec.json.decode(child.stdout, type=BuiltEngine)


def _main() -> int:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job, dec_hook=_to_path)
    try:
        # Libraries print to standard output as they like; the answer must stay alone there.
        with contextlib.redirect_stdout(sys.stderr):
            built = get_backend(job.backend).build(job.spec)
    except EmbedError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    sys.stdout.buffer.write(msgspec.json.encode(built))
    return 0


def _to_path(kind: type, value: object) -> object:
    """Read a path, which JSON does not know."""
    return kind(value)


if __name__ == "__main__":
    sys.exit(_main())
