"""Where the compiled C kernels of `c/` come from.

The wheel for Linux on x86-64 brings them for two levels of processors, and the better one that this processor has is
loaded. Elsewhere they are built on first use with the C compiler of the machine, into a folder of the user. Without
either (or with `GLINTRU_KERNELS=0` in the environment) PyTorch does the work, with the same numbers.

The build hook of the wheel loads this file by its path, so it imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["LEVELS", "best_level", "compile_kernels", "find_compiler", "library"]

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("c")
CARRIED = Path(__file__).with_name("lib")  # what the wheel brings: one library for each of LEVELS
# Not -ffast-math: linked into a library it would flush denormals in the whole process.
FLAGS = [
    *("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
]

# Levels of the x86-64 psABI, the best first, with the flags that /proc/cpuinfo shows where a processor has them.
V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
LEVELS = {
    "x86-64-v4": frozenset(f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl".split()),
    "x86-64-v3": frozenset(V3.split()),
}

COST = "a training step takes up to twice as long, and an answer to a click about 6 times"  # docs/model.md


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or `None` where there are none; one warning then says why, what it costs and what helps."""
    if os.environ.get("GLINTRU_KERNELS", "1") == "0" or os.name != "posix":
        return None
    try:
        return ctypes.CDLL(str(_carried() or _built()))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning(
            "GLINT-RU computes without its compiled CPU kernels: %s. Without them %s. They come with the wheel for "
            "Linux on x86-64; elsewhere they are built on first use where gcc or clang is installed. "
            "GLINTRU_KERNELS=0 in the environment ends this warning.",
            error,
            COST,
        )
        return None


def best_level(flags: Iterable[str]) -> str | None:
    """The best of `LEVELS` whose every flag is in `flags`, those of a processor; None where there is none."""
    flags = frozenset(flags)
    return next((level for level, needed in LEVELS.items() if needed <= flags), None)


def find_compiler() -> str | None:
    """The path of a C compiler: that of `CC` in the environment, else cc, gcc or clang."""
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")


def compile_kernels(compiler: str, target: Path, processor: str = "native") -> None:
    """Compiles the kernels into the shared library `target`.

    Args:
        compiler: Of C, as gcc or clang.
        target: The file to write.
        processor: As the compiler's `-march` takes it, such as one of `LEVELS`.

    Raises:
        OSError, subprocess.SubprocessError: The compiler cannot be run, or it fails.
    """
    command = [compiler, *FLAGS, f"-march={processor}", str(SOURCES / "kernels.c"), "-o", str(target), "-lm"]
    subprocess.run(command, capture_output=True, check=True, timeout=120)


def _processor_flags() -> str:
    """The line of /proc/cpuinfo that lists what the processor can do; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ""


def _carried() -> Path | None:
    """The library of the wheel for this processor, where the package came as such a wheel."""
    file = CARRIED / f"{best_level(_processor_flags().split())}.so"
    return file if file.is_file() else None


def _built() -> Path:
    """The library for this very machine, compiled once for each source, compiler and kind of processor.

    Its name ends with the checksum of its content, which is compared before the file is used. Several processes may
    build at once: each moves a whole file into place.
    """
    compiler = find_compiler()
    if compiler is None:
        raise OSError("there is no C compiler")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    sources = [file.read_text(encoding="utf-8") for file in sorted(SOURCES.iterdir())]
    key = hashlib.sha256("\n".join([*sources, *FLAGS, version, _processor_flags()]).encode()).hexdigest()[:32]
    folder = _private_folder()
    for file in folder.glob(f"{key}-*.so"):
        if _is_own(file.lstat()) and file.stem == f"{key}-{_checksum(file)}":
            return file
        file.unlink(missing_ok=True)  # somebody changed it, or the disk did
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / "kernels.so"
        compile_kernels(compiler, built)
        with open(built, "rb") as content:  # a crash of the machine leaves no file of that name without its content
            os.fsync(content.fileno())
        return built.rename(folder / f"{key}-{_checksum(built)}.so")


def _private_folder() -> Path:
    """The user's folder for libraries, into which nobody else can put one.

    Raises:
        OSError: Somebody else owns it or may write to it, or it cannot be made.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glintru-kernels"
    except RuntimeError as error:
        raise OSError("this user has no home folder for them, and XDG_CACHE_HOME names no other") from error
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise OSError(f"the folder {folder} for them is a link (remove it)")
    if found.st_uid != os.geteuid():
        raise OSError(f"the folder {folder} for them belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"others may write to the folder {folder} for them (remove it, or chmod 700)")
    return folder


def _is_own(found: os.stat_result) -> bool:
    """Whether this is a regular file of the user, and no link."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
