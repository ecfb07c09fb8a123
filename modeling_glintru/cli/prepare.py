"""`glintru prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DataOption,
    ItemColumn,
    OverwriteOption,
    RecipeOption,
    SetOption,
    TimeColumn,
    TitlesOption,
    UserColumn,
    chosen_recipe,
    column_names,
)


def prepare(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where to write the prepared data.")],
    recipe: RecipeOption = None,
    data: DataOption = None,
    changes: SetOption = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    item_titles: TitlesOption = None,
    overwrite: OverwriteOption = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option("--push_to_hub", help="Also upload the interactions, users numbered.", metavar="OWNER/NAME"),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="That data set is for everybody, not private.")] = False,
) -> None:
    """Read, filter and split interactions, once for many runs.

    Example: glintru prepare --recipe ml-1m --data interactions.parquet --output_dir prepared
    """
    from ..runs import prepare_data, push_data

    columns = column_names(user_column, item_column, time_column, item_titles)
    chosen = chosen_recipe(recipe, changes, data, columns)
    prepare_data(chosen, output_dir, overwrite=overwrite)
    print(f"Written to {output_dir}; train on it with --data {output_dir}")
    if push_to_hub is not None:
        result = push_data(chosen.data, push_to_hub, private=not public)
        print(f"Uploaded to {result.url}; train on it with --data {result.repo_id}")
