"""`glintru add-items`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ModelFolderError
from ..models.item_projection import BOOST
from ..terminal import print_lines


def add_items(
    model: Annotated[str, typer.Argument(help="Model folder, or a Hub repository with --output_dir.", metavar="MODEL")],
    items: Annotated[
        str, typer.Option("--items", help="A table of items with the columns that MODEL was trained with, and new ids.")
    ],
    output_dir: Annotated[
        Path | None, typer.Option("--output_dir", help="Where the larger model goes; in MODEL's place if left out.")
    ] = None,
    boost: Annotated[
        float, typer.Option("--boost", help="0 to 1: how much new items are favoured over those that are known.")
    ] = BOOST,
) -> None:
    """Add items that nobody has taken yet to a trained model, by what is known of them.

    Nothing is trained: scores of known items and the states of users stay as they are.

    Example: glintru add-items outputs/mine --items new.parquet
    """
    from ..serving import Recommender
    from ..training import check_run_folder
    from ..whole_files import replace_entries, unfinished_folder

    if output_dir is None and not Path(model).is_dir():
        raise ModelFolderError(f"{model} is not a folder on this machine: say with --output_dir where the model goes")
    target = output_dir or Path(model)
    if output_dir is not None:
        check_run_folder(output_dir)
    recommender = Recommender.from_pretrained(model, device="cpu")
    before = len(recommender.processor)
    added = recommender.add_items(items, boost=boost)
    with unfinished_folder(target) as unfinished:
        recommender.save_pretrained(unfinished)
        target.mkdir(parents=True, exist_ok=True)
        written = {entry.name for entry in unfinished.iterdir()}
        replace_entries(target, unfinished, lambda entry: entry.name not in written)
    print_lines(f"{added.num_new:,} items were added to the {before:,} of the model in {target}: {added.describe()}")
