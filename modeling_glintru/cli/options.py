"""Options and helpers that several verbs share."""

from __future__ import annotations

import csv
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import DataError
from . import one_line_errors

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


@one_line_errors
def _print_keys(changes: list[str]) -> None:
    from ..recipe import DEFAULT_MODEL, key_help

    models = [change.partition("=")[2] for change in changes if change.startswith("model.name=")]
    print(key_help(models[-1] if models else DEFAULT_MODEL))
    raise typer.Exit


def _list_keys(changes: list[str] | None) -> list[str] | None:
    if changes and "help" in changes:
        _print_keys(changes)
    return changes


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one value of the recipe, as in --set lr=1e-3; may be repeated. --set help lists the keys.",
        metavar="KEY=VALUE",
        callback=_list_keys,
        is_eager=True,
    ),
]
TitlesOption = Annotated[str | None, typer.Option("--item_titles", help="Table with item ids and titles.")]
TitleColumn = Annotated[str | None, typer.Option("--title_column", help="Its column of titles.")]
ItemsOption = Annotated[
    str | None,
    typer.Option("--items", help="A table of what is known of the items: text, categories, numbers, vectors."),
]
TextEncoderOption = Annotated[
    str | None,
    typer.Option(
        "--text_encoder",
        help="What makes vectors of their text: tfidf (default), wordllama, or sentence-transformers/NAME.",
        metavar="NAME",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="Where to compute: auto is a CUDA GPU where there is one, else cpu; or a name as torch has it."
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust_remote_code", help="Let code in MODEL's folder run, where its model is not one of this package."
    ),
]
REPEATED, SEVERAL = ("where",), ("columns",)  # options that stand once for each text, and that hold several names
ModelArgument = Annotated[str, typer.Argument(help="Model folder or Hub repository.", metavar="MODEL")]


def parse_ids(text: str, option: str) -> list[str]:
    """Ids separated by commas; one with a comma in it is quoted."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(f'{option} must be one line of ids separated by commas, as in a,"b,c": {error}') from error
    return [stripped for row in rows for part in row if (stripped := part.strip())]


def with_options_of(kind: Any, into: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb an option for each field of a dataclass, and hands it those that were given, in one mapping.

    Args:
        kind: Its fields are text, texts (tuples) or switches; their metadata hold `help` and `metavar`.
        into: The parameter of the verb that takes the mapping; the options stand in its place in `--help`.
    """
    options = [_parameter(item, get_type_hints(kind)[item.name]) for item in fields(kind)]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def wrapped(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in options}
            given = {name: _value(name, value) for name, value in values.items() if value not in (None, False)}
            verb(**arguments, **{into: given})

        parameters = []
        for parameter in inspect.signature(verb, eval_str=True).parameters.values():
            parameters += options if parameter.name == into else [parameter]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapped

    return decorate


def _parameter(item: Field[Any], hint: Any) -> inspect.Parameter:
    names = {"metavar": item.metadata["metavar"]} if item.metadata["metavar"] else {}
    option = typer.Option(f"--{item.name}", help=item.metadata["help"], **names)
    kind: Any = bool if hint is bool else list[str] | None if item.name in REPEATED else str | None
    default = False if kind is bool else None
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _value(name: str, value: Any) -> Any:
    """What a field of the dataclass holds: conditions as they were given, names apart."""
    if name in REPEATED:  # one that is empty lifts those of a recipe
        return tuple(text for text in value if text.strip())
    return tuple(parse_ids(value, f"--{name}")) if name in SEVERAL else value


def asked_for(
    recipe: str | None, overrides: Sequence[str], data: str | None, options: dict[str, Any], **fine_tuning: Any
) -> Any:
    """The `Request` that the options make, with its data; `fine_tuning` are `from_model` and `items` of `request`."""
    from ..errors import RecipeError
    from ..recipe import GivenSplit, list_recipes
    from ..recipe.resolve import request, with_data

    asked = request(recipe, overrides, source=data, **fine_tuning)
    split_files = any(item.name in options for item in fields(GivenSplit))
    if asked.given is not None and data is None and asked.recipe.data.source is None and not split_files:
        raise RecipeError(
            f"say what to learn from with --data FILE, or take a recipe with --recipe: {', '.join(list_recipes())}"
        )
    return replace(asked, recipe=with_data(asked.recipe, data, options))


def all_overrides(changes: Sequence[str] | None, seed: int | None = None, model: str | None = None) -> list[str]:
    """The changes of `--set`, `--seed` and `--model` as one list of KEY=VALUE."""
    overrides = [*(changes or []), *([] if seed is None else [f"seed={seed}"])]
    if model is None:
        return overrides
    from ..models.auto import registered_name

    return [*overrides, f"model.name={registered_name(model)}"]


def trust(model: str, trust_remote_code: bool) -> None:
    """With the consent of `--trust_remote_code`, runs and registers the model code in a folder or repository."""
    if trust_remote_code:
        from ..models.loading import register_code_of

        register_code_of(model)
