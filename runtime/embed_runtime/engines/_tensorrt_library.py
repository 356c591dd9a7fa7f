"""The two editions of TensorRT: their modules, their targets, their log.

The Python modules of TensorRT 11 and TensorRT-RTX 1.7 offer the same calls; where an edition lacks
one, `hasattr` tells, never a version number. Their bindings are untyped: `Any` starts here.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

from embed_runtime.engines._library import import_library, one_line

# The module, or what one of its calls returned.
Trt: TypeAlias = Any

# The first compute capability with bfloat16; older GPUs are left out of portable plans.
_OLDEST_TARGET = 80
# Messages kept while serving: enough to explain a failure, too few to fill the memory.
_MAX_KEPT_LINES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One edition of the library.

    Attributes:
        name: As in a producer, "tensorrt 11.4.0".
        modules: Import names, in order; the wheels of the bindings can be installed without the
            source package that gives them their short name.
        extra: What to install for it.
        magic: What its plans start with; empty where that is not known.
        portable: Whether it builds without a GPU, for many compute capabilities at once.
    """

    name: str
    modules: tuple[str, ...]
    extra: str
    magic: bytes
    portable: bool

    def load(self) -> Trt:
        """Import it.

        Raises:
            MissingLibraryError: It is not here.
        """
        return import_library(self.modules, self.extra)

    def producer(self, trt: Trt) -> str:
        """Name library and version, as recorded in manifests."""
        return f"{self.name} {trt.__version__}"


def portable_targets(trt: Trt) -> dict[str, Trt]:
    """List the compute capabilities a portable plan is built for: "8.9" to the library's name."""
    members = {int(member): member for member in trt.ComputeCapability.__members__.values()}
    return {
        f"{number // 10}.{number % 10}": members[number]
        for number in sorted(members)
        if number >= _OLDEST_TARGET
    }


class Log:
    """What the library says, kept instead of printed.

    Attributes:
        lines: Messages in order: all of them if it is verbose, else the last warnings and errors.
        logger: What the library takes.
    """

    def __init__(self, trt: Trt, *, verbose: bool = False) -> None:
        lines = deque[str](maxlen=None if verbose else _MAX_KEPT_LINES)
        errors = deque[str](maxlen=_MAX_KEPT_LINES)
        least_severe = trt.ILogger.VERBOSE if verbose else trt.ILogger.WARNING

        class Logger(trt.ILogger):  # type: ignore[misc] # its base comes from untyped bindings
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                # The most severe has the smallest number.
                if severity <= least_severe:
                    lines.append(message)
                if severity <= trt.ILogger.ERROR:
                    errors.append(message)

        self.lines = lines
        self.logger: Trt = Logger()
        self._errors = errors

    def take_error(self) -> str:
        """Return the first error since the last call, in one line, and forget the rest."""
        error = one_line(self._errors[0]) if self._errors else "the library gave no reason"
        self._errors.clear()
        return error
