"""How this process holds memory: an export needs much of it, one step after another."""

import ctypes

# malloc.h of glibc; other C libraries have no such function, and no such habit.
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 << 20


def return_large_blocks() -> None:
    """Give freed blocks of 4 MiB and more back to the system at once.

    glibc keeps blocks of up to 32 MiB for itself once some were freed. Of a model of 600 million
    parameters that was more than a gigabyte, which the next step then needed on top of its own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
