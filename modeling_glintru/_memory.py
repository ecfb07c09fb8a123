"""How a training process keeps its memory."""

from __future__ import annotations

import ctypes
import sys
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

__all__ = ["give_back_memory", "keep_freed_memory", "own_bytes"]

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # names of glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed instead of giving it back to the system after every step.

    A training step frees and takes the same hundreds of megabytes again; each time the system maps and clears every
    page anew. Only glibc (Linux); elsewhere nothing changes.

    Returns:
        Whether the C library took it.
    """
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None:
        return False
    options = ((MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26))
    taken = [mallopt(name, size) for name, size in options]
    return all(taken)


def give_back_memory() -> bool:
    """Gives every page that holds nothing back to the system; what is in use stays where it is.

    Only glibc (Linux); elsewhere nothing changes.

    Returns:
        Whether the C library can do it.
    """
    trim = _of_the_c_library("malloc_trim")
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


def own_bytes() -> int | None:
    """Bytes of main memory that this process holds, mapped files not counted; None where no /proc tells."""
    try:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    except OSError:
        return None
    return (resident - shared) * PAGESIZE


def _of_the_c_library(name: str) -> Any:
    """A function of the C library by its name; None where it has none, or on other systems than Linux."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
