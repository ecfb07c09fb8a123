"""The build hook of the wheel: it compiles the CPU kernels and puts them into the wheel.

On Linux on x86-64 with a C compiler the wheel gets one library for each level of processors in
`modeling_glintru/kernels/build.py`, and a tag for that platform. Elsewhere, or with `GLINTRU_KERNELS=0` in the
environment, it is a pure wheel, whose kernels are built on first use. Editable installs always do that.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "modeling_glintru/kernels"


def load_build(root: Path) -> Any:
    """The module `modeling_glintru.kernels.build` without its package, whose requirements are not installed here."""
    spec = importlib.util.spec_from_file_location("glintru_kernel_build", root / FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def platform_tag(libraries: list[Path]) -> str:
    """The tag of the platforms where the libraries load, from what they need of the C library.

    PEP 600: manylinux_2_27 means that glibc 2.27 and what every Linux has beside it is enough. Libraries that need
    anything else get the plain tag, which claims only the machine that built them.
    """
    content = b"".join(file.read_bytes() for file in libraries)
    needed = set(re.findall(rb"\x00(lib[\w+.-]*\.so[\w.]*)(?=\x00)", content))
    versions = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", content)]
    if not versions or not needed <= {b"libc.so.6", b"libm.so.6"}:
        return "linux_x86_64"
    return f"manylinux_2_{max(17, *versions)}_x86_64"


class KernelBuildHook(BuildHookInterface):
    """See the module."""

    scratch: tempfile.TemporaryDirectory | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and tells hatchling what to pack and how to name the wheel."""
        if version == "editable":
            return
        build = load_build(Path(self.root))
        compiler, system = build.find_compiler(), (platform.system(), platform.machine())
        if os.environ.get("GLINTRU_KERNELS", "1") == "0" or compiler is None or system != ("Linux", "x86_64"):
            self.app.display_warning(
                "A pure wheel without compiled kernels: they need Linux on x86-64 and a C compiler where it is built."
            )
            return
        self.scratch = tempfile.TemporaryDirectory()
        files = {level: Path(self.scratch.name) / f"{level}.so" for level in build.LEVELS}
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda level: build.compile_kernels(compiler, files[level], level), files))
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"A pure wheel without compiled kernels: {error}")
            return
        build_data["force_include"] |= {str(file): f"{FOLDER}/lib/{file.name}" for file in files.values()}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(list(files.values()))}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was compiled, now that it is packed."""
        if self.scratch is not None:
            self.scratch.cleanup()
