"""The command `glintru`: prepare, train, evaluate, recommend, compare."""

from __future__ import annotations

import csv
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub.errors import StrictDataclassError

from ._version import __version__
from .errors import DataError, GlintRUError
from .launcher import is_main_process, leave, num_processes

__all__ = ["app", "main"]

app = typer.Typer(
    name="glintru",
    help="GLINT-RU, a sequential recommender: interactions in, a model out, recommendations from it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_BAD_INPUT = 2
debug = False

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
ModelArgument = Annotated[str, typer.Argument(help="Model folder or Hub repository.", metavar="MODEL")]


def _version(value: bool) -> None:
    if value:
        print(f"glintru {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_trace: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""
    global debug
    debug = show_trace
    from transformers.utils import logging

    # One bar and one table of ours; the libraries' own notes would tear them apart.
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Bad input ends in one line on standard error and exit code 2; `--debug` shows the traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # the reader (`head`) has enough: not an error of the input
            raise
        except (GlintRUError, StrictDataclassError, OSError) as error:
            if debug:
                raise
            if is_main_process():
                print(f"glintru: {' '.join(_sentence(error).split())}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_code", EXIT_BAD_INPUT)) from None
        except KeyboardInterrupt:
            print("glintru: stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    return wrapped


def _sentence(error: Exception) -> str:
    if isinstance(error, StrictDataclassError) and error.__cause__:
        return str(error.__cause__)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _ids(text: str, option: str) -> list[str]:
    """Ids separated by commas; one with a comma in it is quoted."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(f'{option} must be one line of ids separated by commas, as in a,"b,c": {error}') from error
    return [stripped for row in rows for part in row if (stripped := part.strip())]


def _columns(user: str | None, item: str | None, time: str | None, titles: str | None = None) -> dict[str, str | None]:
    return {"user_column": user, "item_column": item, "time_column": time, "item_titles": titles}


def _recipe(
    name: str | None,
    changes: Sequence[str] | None,
    data: str | None,
    columns: dict[str, str | None],
    seed: int | None = None,
    model: str | None = None,
) -> Any:
    from .recipes import change_recipe, load_recipe
    from .runs import with_data

    overrides = _overrides(changes, seed, model)
    if name is not None:
        return with_data(load_recipe(name, overrides), data, columns)
    from .errors import RecipeError
    from .presets import blank_recipe
    from .recipes import list_recipes

    recipe = change_recipe(blank_recipe(), overrides)
    if data is None and recipe.data.source is None:
        raise RecipeError(
            f"say what to learn from with --data FILE, or take a recipe with --recipe: {', '.join(list_recipes())}"
        )
    return with_data(recipe, data, columns)


def _overrides(changes: Sequence[str] | None, seed: int | None = None, model: str | None = None) -> list[str]:
    overrides = [*(changes or []), *([] if seed is None else [f"seed={seed}"])]
    return overrides + ([] if model is None else [f"model.name={model}"])


def _completed(recipe: Any, data: Any, overrides: Sequence[str]) -> Any:
    """The recipe with sizes and settings from the data's shape; says what was chosen and why."""
    from .presets import data_shape, describe, preset

    whole, choices = preset(data_shape(data), recipe, overrides)
    if is_main_process():
        print(f"{describe(choices)}\n{_plan(whole)}")
    return whole


def _plan(recipe: Any) -> str:
    from .auto import MODELS

    model = ", ".join(f"{key} {value}" for key, value in recipe.model.items())
    training = recipe.training
    rows = MODELS[recipe.model_name].training_examples
    batch = f"{training.train_batch_size} {rows}" if training.train_batch_targets is None else rows
    targets = "" if training.train_batch_targets is None else f", {training.train_batch_targets} targets"
    return (
        f"Recipe    {recipe.name}, seed {recipe.seed}\nModel     {model}\n"
        f"Training  up to {training.num_train_epochs} epochs, {batch} of {training.max_length}"
        f"{targets} a step, learning rate {training.learning_rate:g}, best epoch by validation "
        f"{training.metric}"
    )


@app.command()
@one_line_errors
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
    from .runs import prepare_data

    columns = _columns(user_column, item_column, time_column, item_titles)
    prepare_data(_recipe(recipe, changes, data, columns), output_dir, overwrite=overwrite)
    print(f"Written to {output_dir}; train on it with --data {output_dir}")


@app.command()
@one_line_errors
def train(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where the model folder goes.")],
    recipe: RecipeOption = None,
    data: DataOption = None,
    changes: SetOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Another model than the recipe's, such as sasrec.", metavar="NAME")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of every random number.")] = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    item_titles: TitlesOption = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --output_dir.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option("--max_minutes", help="Stop after so many minutes, with a checkpoint.")
    ] = None,
    save_minutes: Annotated[
        float, typer.Option("--save_minutes", help="Minutes between two checkpoints within an epoch.")
    ] = 5.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train a model on interactions, measure it, and write a folder that from_pretrained loads.

    Without --recipe, sizes and settings are chosen from the data; the run says which, and why.

    Example: glintru train --data interactions.csv --output_dir outputs/mine
    """
    from .runs import train_and_evaluate

    columns = _columns(user_column, item_column, time_column, item_titles)
    chosen = _recipe(recipe, changes, data, columns, seed, model)
    complete = None
    if recipe is None:
        complete = functools.partial(_completed, overrides=_overrides(changes, seed, model))
    elif is_main_process():
        print(_plan(chosen))
    result, prepared, evaluations = train_and_evaluate(
        chosen,
        output_dir,
        overwrite=overwrite,
        resume=resume,
        max_minutes=max_minutes,
        save_minutes=save_minutes,
        complete=complete,
        progress=not quiet,
    )
    if not is_main_process():
        return
    run = result.summary()
    print(
        f"\nTrained {run['epochs']:g} epochs in {run['seconds']:.0f} s ({run['seconds_per_epoch']:.1f} s each), "
        f"kept epoch {run['best_epoch']:g}; {run['num_parameters']:,} parameters"
    )
    print_evaluations(evaluations, "test")
    _print_examples(result.model, prepared)
    _print_loading_lines(output_dir, prepared)


@app.command()
@one_line_errors
def evaluate(
    model: ModelArgument,
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    changes: SetOption = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    output: Annotated[Path | None, typer.Option("--output", help="Also write the numbers to this JSON file.")] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Measure a trained model on interactions, split as in its own recipe.

    Example: glintru evaluate outputs/ml-1m --data interactions.parquet --set protocols="[full, pop100]"
    """
    from .errors import RecipeError
    from .evaluation import write_metrics_json
    from .recipes import change_recipe
    from .runs import evaluate_model, with_data

    if split not in ("test", "validation"):
        raise RecipeError(f"--split must be test or validation, but got {split!r}")
    if output is not None and not output.absolute().parent.is_dir():
        raise DataError(f"there is no folder {output.parent} for --output {output}")
    if output is not None and output.is_dir():
        raise DataError(f"--output must be a file, but {output} is a folder")
    columns = _columns(user_column, item_column, time_column)
    evaluations, metrics = evaluate_model(
        model,
        lambda recipe: with_data(change_recipe(recipe, changes or []), data, columns),
        split,
        progress=not quiet and not as_json,
        say=_to_stderr if as_json else print,
    )
    if output is not None:
        write_metrics_json(output, metrics)
    if as_json:
        print(json.dumps(metrics, indent=2))
    else:
        print_evaluations(evaluations, split)


@app.command()
@one_line_errors
def recommend(
    model: ModelArgument,
    history: Annotated[
        str | None, typer.Option("--history", help="Raw item ids, oldest first, separated by commas.", metavar="IDS")
    ] = None,
    users: Annotated[
        str | None,
        typer.Option("--users", help="Table of interactions: recommend for each user in it.", metavar="FILE"),
    ] = None,
    user_ids: Annotated[
        str | None, typer.Option("--user_ids", help="Only these users, separated by commas.", metavar="IDS")
    ] = None,
    top_k: Annotated[int, typer.Option("--top_k", help="Items for each user.")] = 10,
    include_seen: Annotated[bool, typer.Option("--include_seen", help="Past items may come again.")] = False,
    unknown_items: Annotated[str, typer.Option("--unknown_items", help="drop or error.")] = "drop",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend the next items after a history, or for each user of a table.

    With --json each user is one line.

    Example: glintru recommend outputs/ml-100k --history "50,172,181" --top_k 10
    """
    from .serving import Recommender

    if (history is None) == (users is None):
        raise DataError("say for whom: either --history IDS or --users FILE")
    if user_ids is not None and users is None:
        raise DataError("--user_ids chooses among the users of --users FILE")
    recommender = Recommender.from_pretrained(model)
    if history is not None:
        names = [None]
        histories = [[recommender.processor.parse_item_id(text) for text in _ids(history, "--history")]]
    else:
        names, histories = _histories(users, user_ids, recommender.processor, user_column, item_column, time_column)
    found = recommender.stream(histories, top_k, exclude_seen=not include_seen, unknown_items=unknown_items)
    for name, items, recommendation in zip(names, histories, found, strict=True):
        _print_recommendation(recommender.processor, name, items, recommendation, as_json)


@app.command()
@one_line_errors
def compare(
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="A data set of the protocol and its file; may be repeated.", metavar="NAME[=FILE]"),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="Name or YAML file of a protocol.", metavar="NAME|FILE")
    ] = "default",
    models: Annotated[
        str | None, typer.Option("--models", help="Only these rows, separated by commas, in this order.")
    ] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option("--preset", help="A row with fixed settings; may be repeated.", metavar="NAME=RECIPE"),
    ] = None,
    ablate: Annotated[
        list[str] | None, typer.Option("--ablate", help="Take this row apart; may be repeated.", metavar="ROW")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Trials at the same time, one core each.")] = 1,
    max_minutes: Annotated[
        float | None, typer.Option("--max_minutes", help="Stop after so many minutes, with a checkpoint.")
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", help="Folder of the results; what is in it does not run again.")
    ] = Path("benchmarks/results/quality"),
    retry_failed: Annotated[bool, typer.Option("--retry_failed", help="Run again what failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Only print the queue and its estimated time.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write the page from what has run so far.")] = False,
    output: Annotated[Path, typer.Option("--output", help="The page that --report writes.")] = Path("docs/results.md"),
) -> None:
    """Compare models: the same search for each, final runs with several seeds, a page with intervals.

    It may be stopped at any time; the same command goes on. Several of them share the work.

    Example: glintru compare --data ml-100k --data ml-1m=interactions.parquet --workers 2
    """
    from .comparison import Results, load_protocol, make_page, run_comparison, select

    chosen, files = load_protocol(protocol), Results(results)
    if report:
        written = make_page(chosen, files, data or [], output)
        print("Written: " + ", ".join(map(str, written)))
        return
    rows = [] if models is None else _ids(models, "--models")
    selection = select(chosen, data or [], rows, presets or [], ablate or [])
    run_comparison(
        chosen, selection, files, workers=workers, max_minutes=max_minutes, retry_failed=retry_failed, dry_run=dry_run
    )


def _histories(
    users: str | None,
    user_ids: str | None,
    processor: Any,
    user_column: str | None,
    item_column: str | None,
    time_column: str | None,
) -> tuple[list[Any], list[list[Any]]]:
    """Raw user ids and their histories, in time order, with item ids in the type of the model's own."""
    import polars as pl

    from .data import load_source

    interactions = load_source(users, user_column=user_column, item_column=item_column, time_column=time_column)
    frame = interactions.frame
    if user_ids is not None:
        wanted = _ids(user_ids, "--user_ids")
        if not wanted:
            raise DataError("--user_ids names no user")
        frame = frame.filter(pl.col("user_id").cast(pl.String).is_in(wanted))
        missing = set(wanted) - set(frame["user_id"].cast(pl.String).to_list())
        if missing:
            raise DataError(f"{interactions.source} has no user {', '.join(sorted(missing))}")
    if processor.id_type == "string":
        frame = frame.with_columns(pl.col("item_id").cast(pl.String))
    grouped = frame.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    grouped = grouped.sort("user_id")
    return grouped["user_id"].to_list(), grouped["item_id"].to_list()


def _print_recommendation(processor: Any, name: Any, history: list[Any], found: Any, as_json: bool) -> None:
    from .display import history_line, recommendation_table

    if as_json:
        row = {"history": history} if name is None else {"user_id": name}
        row |= {"recommendations": found.items, "num_unknown_items": found.num_unknown_items}
        print(json.dumps(row, ensure_ascii=False))
        return
    titles = [processor.title(raw) if raw in processor else None for raw in history]
    print(f"\n{'History' if name is None else f'User {name}'}: {history_line(history, titles)}")
    if found.num_unknown_items:
        print(f"{found.num_unknown_items} of {len(history)} items are unknown to the model and were left out")
    print(recommendation_table(found))


def print_evaluations(evaluations: Any, split: str) -> None:
    """A table for each way of ranking: past items excluded (the main figures), not excluded, sampled."""
    from .evaluation import format_table

    names = {"full": "all items ranked, the user's past items excluded", "full_with_history": "past items ranked too"}
    first = next(iter(evaluations.values()))
    metrics = [f"{metric}@{min(first.ks)}" for metric in ("ndcg", "hr", "mrr")]
    for column in first.ranks:
        tables = {model: evaluation.table(column) for model, evaluation in evaluations.items()}
        title = f"{split}, {first.num_users:,} users: {names.get(column, column)}; 95 % intervals over users"
        print("\n" + format_table(tables, metrics, title=title))


def _print_examples(model: Any, prepared: Any, count: int = 3) -> None:
    from .serving import Recommender

    recommender = Recommender(model, prepared.processor)
    rows = prepared.dataset["test"].select(range(min(count, len(prepared.dataset["test"]))))
    histories = [prepared.processor.decode(row["item_ids"]) for row in rows]
    for row, history, found in zip(rows, histories, recommender.recommend(histories, 5), strict=True):
        _print_recommendation(prepared.processor, row["user_id"], history, found, as_json=False)


def _print_loading_lines(output_dir: Path, prepared: Any) -> None:
    from .display import loading_lines

    history = prepared.processor.decode(prepared.dataset["test"][0]["item_ids"][-3:])
    print(f"\nThe model is in {output_dir}. Load it with\n\n{loading_lines(str(output_dir), history)}")


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Entry point of the command `glintru`."""
    try:
        app()
    except SystemExit as end:
        if num_processes() > 1 and isinstance(end.code, int):
            leave(end.code)
        raise


if __name__ == "__main__":
    main()
