"""`glintru export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DataError
from ..terminal import print_lines
from .options import ModelArgument, OverwriteOption


def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", help="Folder to write to.")],
    to: Annotated[str, typer.Option("--to", help="The format: onnx.")] = "onnx",
    top_k: Annotated[
        int | None, typer.Option("--top_k", help="Return only so many items; otherwise the scores of all.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model for serving without torch: whole histories, and one item onto a state.

    What is written is checked in onnxruntime against torch first. docs/onnx.md shows how to serve it.

    Example: glintru export outputs/ml-100k --to onnx --output exported --top_k 10
    """
    from ..models.loading import load_model_folder
    from ..serving.onnx import export_onnx

    if to != "onnx":
        raise DataError(f"--to must be onnx, but got {to!r}")
    differences = export_onnx(*load_model_folder(model), output, top_k=top_k, overwrite=overwrite)
    for name, difference in differences.items():
        print_lines(f"{output / name}: differs from torch by {difference:.1e} at most on random histories")
    print_lines("docs/onnx.md shows how to serve it with numpy and onnxruntime alone")
