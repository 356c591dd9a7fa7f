"""The error tree: one class for each thing a caller does differently."""

from typing import Self


class EmbedError(Exception):
    """Every error this project raises on purpose; its message says what to do."""


class InputError(EmbedError):
    """The request is wrong; sending it again cannot help.

    Attributes:
        param: Name of the field at fault, as the caller wrote it, or None.
        index: Position of the input at fault in the request, or None.
    """

    def __init__(self, message: str, *, param: str | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.index = index

    def renaming(self, name: str) -> Self:
        """Make the same error with another name for the input at fault, such as `document 3`."""
        message = str(self).replace(f"input {self.index}", name, 1)
        return type(self)(message, param=self.param, index=self.index)


class InputTooLongError(InputError):
    """A text is longer than the model takes and `truncate` is NONE."""


class RequestTooLargeError(InputError):
    """One request asks for more than one may; split, it can succeed."""


class OverloadedError(EmbedError):
    """The queue is full; the same request can succeed later.

    Attributes:
        retry_after_seconds: How long the queue needs to drain at its present pace, at least 1.
    """

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ClosedError(EmbedError):
    """The runtime was closed, or is closing, and takes no more work."""


class BundleError(EmbedError):
    """The bundle is missing, damaged, too new, or built for another machine."""


class NoEngineError(BundleError):
    """No engine that was asked for can run on this machine; the bundle may well be whole."""


class EngineError(EmbedError):
    """The engine failed on a valid batch."""


class NotFiniteError(EngineError):
    """The model gave infinities or NaN for one input; its vector does not exist."""
