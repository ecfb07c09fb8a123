"""How a training process keeps its memory."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # names of glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed instead of giving it back to the system after every step.

    A training step frees and takes the same hundreds of megabytes again; each time the system maps and clears every
    page anew. Only glibc (Linux); elsewhere nothing changes.

    Returns:
        Whether the C library took it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    options = ((MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26))
    taken = [mallopt(name, size) for name, size in options]
    return all(taken)
