"""What a number was measured on, in words that name no host."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

__all__ = ["processor_name"]


def processor_name(device: str = "cpu") -> str:
    """The model name of the processor, or of the GPU where the device is `"cuda"`."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
