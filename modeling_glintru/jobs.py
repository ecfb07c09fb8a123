"""What the commands do: prepare, train, evaluate and fine-tune, from a recipe to a folder."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .data import Interactions, PreparedData, load_prepared, load_source, load_titles
from .data.files import is_prepared
from .data.prepare import prepare
from .data.prepared import with_everything
from .data.reading import FILE_FORM
from .data.sources import read_given_split
from .data.summary import RECURRING
from .errors import DataError, GlintRUError, ModelFolderError, RecipeError, nearest_names
from .evaluation import (
    REFERENCE_TITLES,
    Evaluation,
    ItemKNNScorer,
    ModelScorer,
    OwnItemsScorer,
    PopularityScorer,
    RankingMetrics,
    Scorer,
    collect_metrics,
    no_better_than,
    plot_learning_curves,
    target_ranks,
    write_metrics_json,
)
from .evaluation import evaluate as rank_and_measure
from .hub import push_interactions, write_card, write_handler
from .hub.repository import PushResult
from .machine import is_main_process, pick_device
from .models.auto import model_label, registered_name
from .models.configuration_glintru import write_manifest
from .models.loading import find_data_checksum, load_model_folder, without_bars
from .recipe import (
    DataRecipe,
    Recipe,
    change_recipe,
    load_model_recipe,
)
from .recipe.resolve import (
    as_prepared,
    data_facts,
    for_another_table,
    plan,
    prepared_otherwise,
    request,
    resolve,
    trained_on,
    with_data,
    without_folders,
)
from .recipe.rule import describe
from .terminal import print_lines
from .training import TrainingResult, check_run_folder, save_model_folder
from .training import train as train_weights
from .training.folder import RunFolder, data_checksum, ranking_checksums, run_folder, run_identity
from .training.refit import refit_in_time, warn_of_refitted, with_refit
from .training.start import open_start
from .training.stopping import Interruptions

__all__ = [
    "TrainedModel",
    "evaluate",
    "evaluate_model",
    "for_another_table",
    "prepare_data",
    "push_data",
    "train",
    "train_and_evaluate",
    "with_data",
]

Say = Callable[[str], None]


def read_data(data: DataRecipe, table: Any = None) -> Interactions:
    """The interactions of a table, or those that a recipe names; of a given split, with the part that each belongs to.

    Args:
        data: Says how the interactions are read, and which they are where there is no `table`.
        table: Interactions in memory, or anything else that `read_interactions` takes.
    """
    if table is not None:
        return load_source(table, **data.reading)
    if data.split == "given":
        return read_given_split(data.train_data, data.validation_data, data.test_data, **data.reading)
    return load_source(data.source, **data.reading)


def read_titles(data: DataRecipe, say: Say = print_lines, interactions: Any = None) -> dict[Any, str] | None:
    """The titles that a recipe names, or that stand beside its interactions; None where there are none.

    `interactions` is the table that takes the place of the recipe's source, where there is one.

    Titles that nobody asked for do not matter: where they cannot be read, `say` gets a note, and there are none.

    Raises:
        DataError: As `load_titles`, or a table of titles has none.
    """
    form: dict[str, Any] = {}
    if data.item_titles is None:
        form = {name: value for name, value in data.reading.items() if name in FILE_FORM}
    table = data.item_titles or data.source or data.train_data
    if data.item_titles is None and interactions is not None:
        table = interactions
    try:
        titles = load_titles(table, item_column=data.item_column, title_column=data.title_column, **form)
    except DataError as error:
        if data.item_titles is not None or data.title_column is not None:
            raise
        say(f"Note      The model has no titles of items: {error}")
        return None
    if titles is None and data.item_titles is not None:
        raise DataError(f"{Path(data.item_titles).name} has no column of titles; name it with --title_column.")
    return titles


def prepare_data(
    recipe: Recipe,
    output_dir: Path | None = None,
    *,
    table: Any = None,
    titles: Mapping[Any, str] | None = None,
    processor: Any = None,
    add_items: bool = False,
    time_gaps: bool = False,
    overwrite: bool = False,
    say: Say = print_lines,
) -> PreparedData:
    """Reads, filters and splits the recipe's interactions, or opens them where they are prepared already.

    Args:
        recipe: Its `data` section says what to read and how to split it.
        output_dir: Where to keep the prepared data; in memory when not given.
        table: Interactions that take the place of the recipe's source: a frame, or what else `read_interactions` takes.
        titles: Raw item id to title, in the place of those that `read_titles` finds.
        processor: The vocabulary of an existing model, see `data.prepare.prepare`; prepared data must have the same.
        add_items: Whether items that it lacks are added to a copy of it; prepared data may have such items at its end.
        time_gaps: Whether to keep the times between items even where the recipe's model does without.
        overwrite: Whether `output_dir` may replace prepared data.
        say: Gets what was recognised and counted, for people.

    Raises:
        DataError: As `prepare` and `load_prepared`, or prepared data where it cannot be used.
    """
    data = recipe.data
    if data.source is not None and is_prepared(data.source):
        if output_dir is not None:
            raise DataError(f"{data.source} is prepared already; train on it with --data {data.source}")
        prepared = load_prepared(data.source)
        if processor is not None and not _has_vocabulary(prepared, processor, add_items):
            raise DataError(
                f"{data.source} was prepared with other items than the model's; give --data its interactions"
            )
        if processor is not None:
            prepared.processor.recommend_seen = processor.recommend_seen
    else:
        interactions = read_data(data, table)
        if titles is None and (add_items or processor is None):
            titles = read_titles(data, say, table)
        prepared = prepare(
            interactions,
            output_dir,
            split=data.split,
            hold_out=data.hold_out,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            duplicates=data.duplicates,
            min_user_interactions=data.min_user_interactions,
            min_item_interactions=data.min_item_interactions,
            max_length=recipe.training.max_length,
            item_titles=titles,
            processor=processor,
            add_items=add_items,
            time_gaps=time_gaps or bool(recipe.model.get("use_time_gaps")),
            recommend_seen=recipe.evaluation.recommend_seen,
            seed=data.split_seed,
            reading=data.reading,
            overwrite=overwrite,
        )
    if recipe.evaluation.recommend_seen is not None:
        prepared.processor.recommend_seen = recipe.evaluation.recommend_seen
    say(prepared.describe())
    return prepared


def _has_vocabulary(data: PreparedData, processor: Any, may_have_more: bool) -> bool:
    found = data.processor.item_ids
    return (found[: len(processor)] if may_have_more else found) == processor.item_ids


def push_data(data: DataRecipe, repo_id: str, *, private: bool = True) -> PushResult:
    """Uploads the interactions that a recipe names, as they are before filters and split, with titles where known.

    Raises:
        DataError: As `read_data`, or the data is prepared already and has no times any more.
        HubError: As `push_interactions`.
    """
    if is_prepared(data.source):
        raise DataError(f"{data.source} is prepared already; --push_to_hub wants the interactions themselves")
    if data.split == "given":
        raise DataError("--push_to_hub uploads one table, --data FILE, not the files of a split that is given")
    return push_interactions(read_data(data), repo_id, item_titles=read_titles(data), private=private)


def reference_names(recipe: Recipe, data: PreparedData) -> list[str]:
    """The reference models that the recipe names, and the user's own items where items recur."""
    named = list(recipe.evaluation.reference_models)
    if named and data.recurring >= RECURRING:
        named += [name for name in ("own_newest", "own_frequent") if name not in named]
    return named


def reference_scorers(recipe: Recipe, data: PreparedData) -> dict[str, Scorer]:
    """The models that a result is shown beside."""
    makers: dict[str, Callable[[], Scorer]] = {
        "popularity": lambda: PopularityScorer(data.item_counts),
        "item_knn": lambda: ItemKNNScorer(data.dataset["train"], data.processor.vocab_size),
        "own_newest": lambda: OwnItemsScorer(data.item_counts, "newest"),
        "own_frequent": lambda: OwnItemsScorer(data.item_counts, "frequent"),
    }
    return {name: makers[name]() for name in reference_names(recipe, data)}


def _evaluations(
    recipe: Recipe, data: PreparedData, split: str, scorers: dict[str, Scorer], progress: bool
) -> dict[str, Evaluation]:
    if len(data.dataset[split]) == 0:
        raise DataError(f"no user of the {split} split can be evaluated")
    return {
        name: rank_and_measure(
            scorer,
            data.dataset[split],
            ks=recipe.evaluation.top_k,
            protocols=recipe.evaluation.protocols,
            item_counts=data.item_counts,
            recommend_seen=data.processor.recommend_seen,
            batch_size=recipe.training.eval_batch_size,
            seed=recipe.seed,
            num_bootstrap=recipe.evaluation.num_bootstrap,
            progress=progress and sys.stderr.isatty(),
            description=f"{split}: {name}",
        )
        for name, scorer in scorers.items()
    }


def train_and_evaluate(
    recipe: Recipe,
    output_dir: Path,
    *,
    table: Any = None,
    titles: Mapping[Any, str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    save_minutes: float = 5.0,
    refit: bool = False,
    given: Sequence[str] | None = None,
    progress: bool = True,
    say: Say = print_lines,
) -> tuple[TrainingResult, PreparedData, dict[str, Evaluation]]:
    """Prepares, trains, evaluates on the test split and writes the model folder.

    The folder gets weights, vocabulary, remote code, `metrics.json`, `recipe.yaml`, `training_log.json`,
    `learning_curves.png` and a card (`README.md`); an earlier model in it is replaced only by a finished one. Started
    by `torchrun` or `accelerate launch`, all processes train, and the first one alone evaluates, writes and prints.

    Args:
        recipe: With a data source. Its `fine_tuning` section makes it start from another model, which then stands
            beside the results as `before`.
        output_dir: Where the model folder goes.
        table, titles: See `prepare_data`.
        overwrite: Whether it may replace an earlier model, or start an unfinished run again.
        resume: Whether to go on with the unfinished run in it.
        max_minutes: The run is to be done after so many minutes, preparation included. What is promised: the training
            stops so long before that the final measuring fits in, by what the first validation took. Where it stops
            before any epoch is validated, and in the time of writing the folder, the run takes a little longer. The
            folder then holds the model of the best epoch so far with its figures, and checkpoints for `resume`.
        save_minutes: Minutes between two checkpoints within an epoch.
        refit: Whether to train once more on everything, held-out items and users included, once the epoch is found, and
            to keep that model with the figures of the measured one; as `training.refit` in the recipe.
        given: The `key=value` texts that somebody gave and that are in the recipe; the rule then chooses every other
            setting from the data. None where the recipe says all of them. See `resolve.request`.
        progress: Whether to show a bar and a line an epoch.
        say: Gets lines for people.

    Returns:
        The training's result, the data, and the test evaluations by model, the trained one first; no evaluations in
        processes other than the first. After a refit the result's model is the refitted one, which trained on the
        targets; the evaluations are those of the model before it.

    Raises:
        DataError: As `prepare_data`, or a refit of prepared data that does not hold all interactions.
        RunStopped: The run was stopped by a signal, after its checkpoint was written: no model then.
    """
    if not (max_minutes is None or max_minutes > 0) or not save_minutes >= 0:
        raise RecipeError(f"--max_minutes must be above 0 and --save_minutes at least 0: {max_minutes}, {save_minutes}")
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    if refit:
        recipe = replace(recipe, training=replace(recipe.training, refit=True))
    main = is_main_process()
    if main:
        check_run_folder(output_dir, overwrite=overwrite, resume=resume)
    start, vocabulary, add_items = None, None, False
    if recipe.fine_tuning is not None:
        start = open_start(recipe.fine_tuning)
        vocabulary = None if start.settings.items == "new" else start.processor
        add_items = start.settings.items == "add"
        if main:
            warn_of_refitted(start, say)
    hear = say if main else _say_nothing
    data = prepare_data(recipe, table=table, titles=titles, processor=vocabulary, add_items=add_items, say=hear)
    facts, in_place = data_facts(data), _in_place(recipe, output_dir)
    if note := prepared_otherwise(recipe.data, facts):
        hear(note)
    is_fresh = not is_prepared(recipe.data.source)
    fitted = {} if start is None else {"fitted": start.fitted}
    recipe, choices = resolve(recipe, facts, given, **fitted)  # from here on it is only read
    if given is not None and is_fresh:  # as if it had been prepared with the whole recipe
        data.summary["options"]["max_length"] = recipe.training.max_length
    hear("\n".join([*([describe(choices)] if choices else []), plan(recipe)]))
    everything = with_everything(data) if recipe.training.refit else None
    identity = run_identity(recipe, data)
    with run_folder(output_dir, identity, resume) if main else nullcontext(RunFolder(output_dir)) as run:
        options: dict[str, Any] = {
            **{"start": start, "resume": resume, "progress": progress, "say": hear},
            "interruptions": Interruptions(deadline, 60 * save_minutes, _passes_after(recipe, data)),
        }
        result = train_weights(
            recipe,
            data,
            output_dir,
            compute_metrics=RankingMetrics(_validation_ks(recipe)),
            preprocess_logits_for_metrics=target_ranks,
            keep_best=True,
            **options,
        )
        if result.stopped is not None:
            hear(f"Stopped   by --max_minutes after {result.stopped}: epoch {result.best_epoch:g} is kept")
        last = None
        if everything is not None:  # before the measuring: other processes must not wait for the first one
            result, last = refit_in_time(result, recipe, everything, output_dir, **options)
        if not main:
            return with_refit(result, last), data, {}
        finished = run.results
        label = model_label(type(result.model))
        scorer = ModelScorer(result.model, recipe.training.max_length)
        scorers: dict[str, Scorer] = {label: scorer}
        if start is not None and start.settings.items != "new":
            scorers["before"] = ModelScorer(start.model_for(recipe, data), recipe.training.max_length)
        validations = _evaluations(recipe, data, "validation", scorers, progress)
        validation = validations[label]
        if "before" in validations:
            say(_what_it_brought(validations["before"], validation))
        tests = _evaluations(recipe, data, "test", scorers | reference_scorers(recipe, data), progress)
        data.wait_until_checked()
        result = with_refit(result, last)
        written = recipe
        if last is not None:
            data.processor.item_counts = last.item_counts
        elif recipe.training.refit:  # the time was up before it: these weights have not seen what is held out
            written = replace(recipe, training=replace(recipe.training, refit=False))
        save_model_folder(finished, result, data, written)
        plot_learning_curves(
            result.log_history, finished / "learning_curves.png", metric=f"eval_{recipe.training.metric}"
        )
        metrics = collect_metrics(
            tests[label],
            validation=validation,
            baselines={name: evaluation for name, evaluation in tests.items() if name != label},
            recipe=written.to_dict(),
            seed=recipe.seed,
            data=data.summary,
            data_checksum=data_checksum(data),
            training=result.summary(),
            **result.outcome(),
        )
        write_metrics_json(finished / "metrics.json", metrics)
        write_handler(finished)
        weakness = no_better_than(metrics.get("against", {}), min(recipe.evaluation.top_k))
        write_card(finished, output_dir.absolute().name, REFERENCE_TITLES, weakness)
        write_manifest(finished)
        # A model that is fine-tuned in place has no beginning any more to go on from.
        run.goes_on = result.stopped is not None and not in_place
    return result, data, tests


def _passes_after(recipe: Recipe, data: PreparedData) -> float:
    """What the final measuring takes, in passes of one model over the validation split, about."""
    tests = len(data.dataset["test"]) / max(len(data.dataset["validation"]), 1)
    models = 1 if recipe.fine_tuning is None or recipe.fine_tuning.items == "new" else 2
    return models * (1 + tests) + len(reference_names(recipe, data)) * tests


def _in_place(recipe: Recipe, output_dir: Path) -> bool:
    start = None if recipe.fine_tuning is None else Path(recipe.fine_tuning.from_model)
    return start is not None and start.is_dir() and output_dir.is_dir() and start.samefile(output_dir)


def _say_nothing(text: str) -> None:
    pass


def evaluate_model(
    model_folder: str,
    recipe_changes: Callable[[Recipe], Recipe],
    split: str,
    *,
    table: Any = None,
    as_is: bool = False,
    device: str | None = None,
    progress: bool = True,
    say: Say = print_lines,
) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """Measures a saved model on interactions, split as in its own recipe.

    Args:
        model_folder: Folder or Hub repository.
        recipe_changes: From the model's recipe to the one to evaluate with (data source, protocols, …).
        split: `"test"` or `"validation"`.
        table: See `prepare_data`.
        as_is: Whether to measure even where the model may have trained on some of the targets; the entry
            `trained_on_targets` then says so.
        device: Where the model computes, see `pick_device`.
        progress: Whether to show a bar.
        say: Gets what was recognised and counted, for people.

    Returns:
        Evaluations by model, the trained one first, and what `metrics.json` would hold.

    Raises:
        RecipeError: The changed recipe describes another model, or splits or filters the data in another way than the
            model's own recipe, so that the model has trained on some of the targets.
    """
    model, processor = load_model_folder(model_folder)
    where: Any = pick_device(device)
    model.to(where)
    trained = load_model_recipe(model_folder)
    recipe = recipe_changes(trained)
    for name, value in recipe.model.items():
        if value != trained.model.get(name):
            raise RecipeError(f"a trained model is measured as it is: --set cannot change its {name}")
    data = prepare_data(recipe, table=table, processor=processor, say=say)
    wanted, recipe = recipe, as_prepared(recipe, data_facts(data))  # a prepared folder may be split in another way
    reason = trained_on(trained, wanted) or trained_on(trained, recipe)
    if reason is not None and not as_is:
        raise RecipeError(
            f"{reason}, so it has trained on some of these targets and the figures would be too good; --as_is measures "
            "all the same, and marks the figures"
        )
    checksum = find_data_checksum(model_folder)
    same_data = None if checksum is None else checksum == data_checksum(data)
    if same_data is False:
        say(
            "Note      This is not the data that the model was trained and measured on: if the model learned from some "
            "of these targets, the figures are too good."
        )
    label = model_label(type(model))
    scorers: dict[str, Scorer] = {label: ModelScorer(model, recipe.training.max_length)}
    evaluations = _evaluations(recipe, data, split, scorers | reference_scorers(recipe, data), progress)
    measured = evaluations[label]
    metrics = collect_metrics(
        measured,
        split,
        baselines={name: evaluation for name, evaluation in evaluations.items() if name != label},
        trained_on_targets=reason is not None,
        same_data=same_data,
        ranked=ranking_checksums(data, split),
        recipe=without_folders(recipe).to_dict(),
        seed=recipe.seed,
    )
    return evaluations, metrics


def _what_it_brought(before: Evaluation, after: Evaluation) -> str:
    metric = f"ndcg@{min(after.ks)}"
    old, new = (evaluation.table()[metric]["value"] for evaluation in (before, after))
    helped = "" if new > old else ": it did not help, keep the old model or try a lower learning_rate"
    return f"Fine-tuning brought validation {metric} from {old:.4f} to {new:.4f}{helped}"


def _validation_ks(recipe: Recipe) -> tuple[int, ...]:
    return tuple(sorted({*recipe.evaluation.top_k, int(recipe.training.metric.rpartition("@")[2])}))


# ---------------------------------------------------------------------- calls from Python


@dataclass(frozen=True)
class TrainedModel:
    """What `train` gives back.

    Args:
        output_dir: The model folder, with weights, vocabulary, card, metrics and recipe. A temporary one exists for as
            long as this object, or the `Recommender` made from it.
        model: The trained model, in eval mode.
        processor: Its vocabulary.
        metrics: The figures of the test split in the ranking that is served, such as `{"ndcg@10": 0.21, ...}`.
        evaluations: All that was measured on the test split, by model, the trained one first.
        temporary: Removes the folder together with this object; None where the caller named the folder.
    """

    output_dir: Path
    model: Any
    processor: Any
    metrics: dict[str, float]
    evaluations: dict[str, Evaluation]
    temporary: Any = None


# Options of the commands, in messages that both front doors raise, whose arguments have other names.
ARGUMENTS = {"--data": "interactions", "--from": "from_model", "--item_titles": "titles", "--set": "settings"}


def _named_for_python(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds to an error that names an option of a command which argument of `function` it is."""
    arguments = inspect.signature(function).parameters

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except GlintRUError as error:
            named = [option for option in re.findall(r"--\w+", str(error)) if ARGUMENTS.get(option) in arguments]
            said = " and ".join(f"{option} is the argument {ARGUMENTS[option]}" for option in dict.fromkeys(named))
            if said:
                error.args = (f"{error} (in Python, {said})",)
            raise

    return wrapped


@_named_for_python
def train(
    interactions: Any = None,
    output_dir: str | PathLike[str] | None = None,
    *,
    recipe: str | PathLike[str] | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    from_model: str | None = None,
    items: str | None = None,
    titles: Any = None,
    seed: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    refit: bool = False,
    verbose: bool = True,
    **reading: Any,
) -> TrainedModel:
    """Trains a model on interactions, measures it, and writes a model folder: `glintru train` for Python.

    Args:
        interactions: A pandas or polars frame, a pyarrow table, a `datasets.Dataset`, a path (CSV, Parquet, JSON lines
            and others, see `read_interactions`), a list of such paths, or a folder of prepared data. It may be left out
            where the recipe names its data.
        output_dir: Where the model folder goes; a temporary folder where it is left out.
        recipe: Name or YAML file of a recipe. Where it is left out, the sizes and settings are chosen from the data.
        model: Name of another model than the recipe's, such as `"sasrec"`, or `"file.py:Class"` for one of your own.
        settings: Values of the recipe by key, as `--set` takes them: `{"num_train_epochs": 5, "hidden_size": 64}`.
        from_model: A model folder or Hub repository to fine-tune.
        items: With `from_model`: `"add"`, `"known"` or `"new"`, see `FineTuningRecipe`.
        titles: Titles of items: a mapping from raw id to title, or a table with both columns.
        seed: Seed of every random number.
        overwrite, resume, max_minutes, refit: See `train_and_evaluate`.
        verbose: Whether to print what was recognised and chosen, and a line for each epoch.
        reading: How the table is read: `user_column`, `item_column`, `time_column` and all other fields of
            `ReadingOptions`; also the other fields of `DataRecipe`, such as `split`.

    Raises:
        DataError: The interactions cannot be used.
        RecipeError: A setting that does not exist, or a value out of range.
        ModelFolderError: `output_dir` holds something that must not be replaced.
    """
    overrides = _overrides(settings, seed, model)
    source, table = _source_or_table(interactions)
    say = print_lines if verbose else _say_nothing
    named = None if recipe is None else str(recipe)
    asked = request(named, overrides, from_model=from_model, items=items, source=source if table is None else table)
    chosen = with_data(asked.recipe, source, _known_options(reading), table)
    temporary = None
    if output_dir is None:
        temporary = TemporaryDirectory(prefix="glintru-", ignore_cleanup_errors=True)
        output_dir = Path(temporary.name) / "model"
    with without_bars():
        result, data, evaluations = train_and_evaluate(
            chosen,
            Path(output_dir),
            table=table,
            titles=_titles(titles, chosen.data),
            overwrite=overwrite,
            resume=resume,
            max_minutes=max_minutes,
            refit=refit,
            given=asked.given,
            progress=verbose,
            say=say,
        )
    measured = next(iter(evaluations.values()))
    metrics = measured.means()
    figures = ", ".join(f"{name.upper()} {metrics[name]:.4f}" for name in measured.headline)
    say(f"Trained {result.summary()['epochs']:g} epochs; epoch {result.best_epoch:g} was the best on validation")
    say(f"Test      {figures}, {measured.num_users:,} users (more in the model's metrics)")
    return TrainedModel(Path(output_dir), result.model, data.processor, metrics, evaluations, temporary)


@_named_for_python
def evaluate(
    model: Any,
    interactions: Any = None,
    *,
    split: str = "test",
    settings: Mapping[str, Any] | None = None,
    as_is: bool = False,
    device: str | None = None,
    verbose: bool = False,
    **reading: Any,
) -> dict[str, float]:
    """Measures a trained model on interactions, split as in its own recipe: `glintru evaluate` for Python.

    Args:
        model: A model folder or Hub repository, or a `Recommender` or `TrainedModel`, which know theirs.
        interactions: As `train` takes them; may be left out where the model's recipe names its data.
        split: `"test"` or `"validation"`.
        settings: Values of the recipe by key, such as `{"top_k": [5, 20]}`.
        as_is: Whether to measure even where the model may have trained on some of the targets.
        device: Where the model computes, see `pick_device`.
        verbose: Whether to print what was recognised in the table.
        reading: As `train` takes it.

    Returns:
        The figures in the ranking that is served, such as `{"ndcg@10": 0.21, "hr@10": 0.35, ...}`.

    Raises:
        DataError, RecipeError, ModelFolderError: See `evaluate_model`.
    """
    if split not in ("test", "validation"):
        raise RecipeError(f"split must be test or validation, but got {split!r}")
    folder = getattr(model, "output_dir", None) or getattr(model, "folder", None) or model
    if not isinstance(folder, (str, Path)):
        raise ModelFolderError(f"evaluate takes the folder of a model or its name on the Hub, not {type(model)}")
    source, table = _source_or_table(interactions)
    overrides, options = _overrides(settings), _known_options(reading)

    def changed(trained: Recipe) -> Recipe:
        known = change_recipe(for_another_table(trained, source if table is None else table), overrides)
        return known if interactions is None and not reading else with_data(known, source, options, table)

    evaluations, _ = evaluate_model(
        str(folder),
        changed,
        split,
        table=table,
        as_is=as_is,
        device=device,
        progress=verbose,
        say=print_lines if verbose else _say_nothing,
    )
    return next(iter(evaluations.values())).means()


def _source_or_table(interactions: Any) -> tuple[str | None, Any]:
    """A path or name that a recipe can hold, or else the table itself."""
    if interactions is None or isinstance(interactions, (str, PathLike)):
        return (None if interactions is None else str(interactions)), None
    return None, interactions


def _overrides(settings: Mapping[str, Any] | None, seed: int | None = None, model: str | None = None) -> list[str]:
    """The `key=value` texts of `--set`; JSON is YAML too."""
    values = dict(settings or {}) | ({} if seed is None else {"seed": seed})
    values |= {} if model is None else {"model.name": registered_name(model)}
    try:
        return [f"{key}={json.dumps(value)}" for key, value in values.items()]
    except TypeError as error:
        raise RecipeError(f"settings must hold numbers, texts, switches or lists of them: {error}") from error


def _known_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of `reading`, each of which must be a field of `DataRecipe`."""
    known = {item.name for item in fields(DataRecipe)} - {"source", "item_titles"}
    for name in options:
        if name not in known:
            raise RecipeError(
                f"There is no option {name!r} for reading interactions; {nearest_names(name, known)}. A setting of the "
                f'training is given as settings={{"{name}": ...}}.'
            )
    return options


def _titles(titles: Any, data: DataRecipe) -> Mapping[Any, str] | None:
    if titles is None or isinstance(titles, Mapping):
        return titles
    found = load_titles(titles, item_column=data.item_column, title_column=data.title_column)
    if found is None:
        raise DataError("the table of titles has no column of titles; name it with title_column")
    return found
