"""`glintru convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import print_lines


def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="The authors' RecBole checkpoint (.pth), weights alone.", metavar="CHECKPOINT")
    ],
    ids: Annotated[
        str,
        typer.Option("--ids", help="RecBole's item tokens in the order of their indices: json, or one a line."),
    ],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where the model folder goes.")],
    num_attention_heads: Annotated[
        int | None, typer.Option("--num_attention_heads", help="Their n_heads, where the file does not say it.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max_length", help="Newest items of a history that the model reads.")
    ] = None,
) -> None:
    """Make a model folder of a checkpoint of the authors' code.

    Example: glintru convert GLINTRU.pth --ids items.json --output_dir outputs/converted
    """
    from ..hub.convert import convert
    from ..models.processing_glintru import GlintRUProcessor
    from .printing import print_loading_lines

    model = convert(
        checkpoint,
        ids,
        output_dir,
        num_attention_heads=num_attention_heads,
        max_length=max_length,
    )
    config, processor = model.config, GlintRUProcessor.from_pretrained(output_dir)
    print_lines(
        f"GLINT-RU of width {config.hidden_size} with {config.num_attention_heads} heads, {len(processor)} items, "
        f"histories of up to {processor.max_length} items"
    )
    print_loading_lines(str(output_dir), list(processor.item_ids[:3]))
