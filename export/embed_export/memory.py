"""Memory of this process, between steps that need much of it."""

import ctypes


def give_back_memory() -> None:
    """Give what was freed back to the system; glibc keeps blocks of up to 32 MB for itself.

    Of a model of 600 million parameters that is more than a gigabyte.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
