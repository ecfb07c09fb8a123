"""Where the C kernels of `c/` come from: built on first use where there is a C compiler, into the user's cache.

Without a compiler (or with `GLINTRU_KERNELS=0` in the environment) nothing is built and PyTorch does the work, with the
same numbers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["FLAGS", "library"]

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("c")
# Not -ffast-math: linked into a library it would flush denormals in the whole process.
FLAGS = [
    *("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or `None` where they cannot be built."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("GLINTRU_KERNELS", "1") == "0" or compiler is None or os.name != "posix":
        return None
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        logger.info("the CPU kernels were not built, PyTorch's own operations are used instead: %s", error)
        return None


def _build(compiler: str) -> Path:
    """Compiles once for each source, compiler and kind of CPU; safe with several processes."""
    with open("/proc/cpuinfo", encoding="utf-8") if Path("/proc/cpuinfo").exists() else open(os.devnull) as file:
        processor = next((line for line in file if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    sources = [file.read_text(encoding="utf-8") for file in sorted(SOURCES.iterdir())]
    digest = hashlib.sha256("\n".join([*sources, *FLAGS, version, processor]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glintru" / "kernels"
    target = folder / f"kernels-{digest}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "kernels.so"
            command = [compiler, *FLAGS, str(SOURCES / "kernels.c"), "-o", str(built), "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=120)
            os.replace(built, target)
    return target
