"""The machine that this runs on: its threads, its memory, its devices, and the other processes of a run.

Imported before torch, which it imports only where it is needed.
"""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import torch
import ctypes
from mmap import PAGESIZE

__all__ = [
    "give_back_memory",
    "is_main_process",
    "is_own_command",
    "keep_freed_memory",
    "leave",
    "num_processes",
    "one_thread",
    "own_bytes",
    "pick_device",
    "processor_name",
]


def is_own_command() -> bool:
    """Whether this process is the command `glintru`, or `python -m modeling_glintru`."""
    words = sys.orig_argv[1:]
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1].startswith("modeling_glintru")
    return os.path.basename((sys.argv or [""])[0]).startswith("glintru")


# OpenMP reads this once, when torch loads: how the threads of the command wait for each other. Threads that spin made
# a training with two threads five times slower whenever another process wanted one of two cores. In other programs the
# choice is theirs.
if is_own_command():
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device to compute on.

    Args:
        name: `"auto"` or None, for a CUDA GPU where there is one, else the CPU; or any name that torch knows, such as
            `"cpu"`, `"cuda:1"` or `"mps"`.

    Raises:
        GlintRUError: torch knows no such device, or this machine does not have it.
    """
    import torch

    from .models.configuration_glintru import GlintRUError

    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" holds no numbers, a missing device none either
    except (RuntimeError, AssertionError, TypeError) as error:
        said = (str(error) or type(error).__name__).split(". ")[0].rstrip(".")
        reason = textwrap.shorten(said, 100, placeholder=" …")
        raise GlintRUError(
            f"there is no device {str(name)!r} to compute on ({reason}); give auto, cpu, or a device of this machine"
        ) from error
    return device


def processor_name(device: str = "cpu") -> str:
    """The model name of the processor, or of the GPU where the device is `"cuda"`."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def expanded(name: str | os.PathLike[str]) -> Path:
    """A path with `~` at its beginning replaced by the home folder, or as it is where that folder is not known."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user, or a process whose user has no entry in the system's list
        return Path(name)


def is_main_process() -> bool:
    """Whether this process writes and prints: the first of those that a launcher started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """How many processes a launcher started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave(code: int) -> NoReturn:
    """Ends a process that shares a run with others, at once.

    The teardown of an interpreter with threads of a process group was seen to abort, and to wait for ever.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # names of glibc's mallopt(3)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch give the same bits whatever the number of threads, in half as long again as two threads take."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
