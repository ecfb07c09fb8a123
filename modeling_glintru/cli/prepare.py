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
) -> None:
    """Read, filter and split interactions, once for many runs.

    Example: glintru prepare --recipe ml-1m --data interactions.parquet --output_dir prepared
    """
    from ..runs import prepare_data

    columns = column_names(user_column, item_column, time_column, item_titles)
    prepare_data(chosen_recipe(recipe, changes, data, columns), output_dir, overwrite=overwrite)
    print(f"Written to {output_dir}; train on it with --data {output_dir}")
