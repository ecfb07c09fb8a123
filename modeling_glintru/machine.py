"""What a number was measured on, in words that name no host."""

from __future__ import annotations

import platform
import textwrap
from pathlib import Path

import torch

from .errors import GlintRUError

__all__ = ["pick_device", "processor_name"]


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device to compute on.

    Args:
        name: `"auto"` or None, for a CUDA GPU where there is one, else the CPU; or any name that torch knows, such as
            `"cpu"`, `"cuda:1"` or `"mps"`.

    Raises:
        GlintRUError: torch knows no such device, or this machine does not have it.
    """
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
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
