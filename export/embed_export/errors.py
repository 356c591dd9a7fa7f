"""What can stop an export."""

from embed_runtime.errors import EmbedError


class ExportError(EmbedError):
    """The export stopped; the message names the step, the file and the remedy."""


class UnsupportedModelError(ExportError):
    """The checkpoint asks for something no recipe computes."""


class ParityError(ExportError):
    """The built engine does not give the original model's vectors.

    Attributes:
        measured: The figure that fell short, as measured.
        allowed: The limit it had to meet.
    """

    def __init__(self, message: str, *, measured: float, allowed: float) -> None:
        super().__init__(message)
        self.measured = measured
        self.allowed = allowed
