"""`glintru prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..recipe import GivenSplit
from ..terminal import print_lines
from .options import (
    DataOption,
    ItemsOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    TextEncoderOption,
    TitleColumn,
    TitlesOption,
    all_overrides,
    asked_for,
    with_options_of,
)


@with_options_of(GivenSplit, into="split_files")
@with_options_of(ReadingOptions, into="reading")
def prepare(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where to write the prepared data.")],
    recipe: RecipeOption = None,
    data: DataOption = None,
    changes: SetOption = None,
    *,
    split_files: dict[str, Any],
    reading: dict[str, Any],
    item_titles: TitlesOption = None,
    title_column: TitleColumn = None,
    items: ItemsOption = None,
    text_encoder: TextEncoderOption = None,
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
    from ..jobs import prepare_data, push_data

    options = {**split_files, **reading, "item_titles": item_titles, "title_column": title_column}
    options |= {"items": items, "text_encoder": text_encoder}
    chosen = asked_for(recipe, all_overrides(changes), data, options).recipe
    prepare_data(chosen, output_dir, overwrite=overwrite)
    print_lines(f"The prepared data is in {output_dir}. Train on it with --data {output_dir}")
    if push_to_hub is not None:
        result = push_data(chosen.data, push_to_hub, private=not public)
        print_lines(f"The interactions are at {result.url}. Train on them with --data {result.repo_id}")
