"""The code that Inference Endpoints run, beside the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

__all__ = ["HANDLER_FILE", "write_handler"]

HANDLER_FILE = "handler.py"  # the name that Inference Endpoints look for


def write_handler(folder: Path) -> bool:
    """Copies `handler.py` into a model folder whose code travels with the weights; whether it does."""
    if "auto_map" not in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        return False
    shutil.copyfile(Path(__file__).with_name(HANDLER_FILE), folder / HANDLER_FILE)
    return True
