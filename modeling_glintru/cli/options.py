"""Options and helpers that several verbs share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..errors import DataError

RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Name or YAML file of a recipe; chosen from the data if left out.", metavar="NAME|FILE"
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Interactions: csv, tsv, parquet, jsonl, inter; a prepared folder; a Hub data set."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of the recipe; may be repeated.", metavar="KEY=VALUE"),
]
UserColumn = Annotated[str | None, typer.Option("--user_column", help="Column of user ids.")]
ItemColumn = Annotated[str | None, typer.Option("--item_column", help="Column of item ids.")]
TimeColumn = Annotated[str | None, typer.Option("--time_column", help="Column of times.")]
TitlesOption = Annotated[str | None, typer.Option("--item_titles", help="Table with item ids and titles.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="Where to compute: auto is a CUDA GPU where there is one, else cpu; or a name as torch has it."
    ),
]
ModelArgument = Annotated[str, typer.Argument(help="Model folder or Hub repository.", metavar="MODEL")]


def parse_ids(text: str, option: str) -> list[str]:
    """Ids separated by commas; one with a comma in it is quoted."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(f'{option} must be one line of ids separated by commas, as in a,"b,c": {error}') from error
    return [stripped for row in rows for part in row if (stripped := part.strip())]


def column_names(
    user: str | None, item: str | None, time: str | None, titles: str | None = None
) -> dict[str, str | None]:
    """The columns, by the names that the readers of data know."""
    return {"user_column": user, "item_column": item, "time_column": time, "item_titles": titles}


def chosen_recipe(
    name: str | None,
    changes: Sequence[str] | None,
    data: str | None,
    columns: dict[str, str | None],
    seed: int | None = None,
    model: str | None = None,
) -> Any:
    """The recipe that the options name, or one that is still to be completed from the data."""
    from ..recipes import change_recipe, load_recipe
    from ..runs import with_data

    overrides = all_overrides(changes, seed, model)
    if name is not None:
        return with_data(load_recipe(name, overrides), data, columns)
    from ..errors import RecipeError
    from ..presets import blank_recipe
    from ..recipes import list_recipes

    recipe = change_recipe(blank_recipe(), overrides)
    if data is None and recipe.data.source is None:
        raise RecipeError(
            f"say what to learn from with --data FILE, or take a recipe with --recipe: {', '.join(list_recipes())}"
        )
    return with_data(recipe, data, columns)


def all_overrides(changes: Sequence[str] | None, seed: int | None = None, model: str | None = None) -> list[str]:
    """The changes of `--set`, `--seed` and `--model` as one list of KEY=VALUE."""
    overrides = [*(changes or []), *([] if seed is None else [f"seed={seed}"])]
    return overrides + ([] if model is None else [f"model.name={model}"])
