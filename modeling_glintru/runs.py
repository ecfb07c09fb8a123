"""Whole jobs, made of the rooms: what the commands of `glintru` do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .auto import model_label
from .baselines import ItemKNNScorer, PopularityScorer
from .data import Interactions, PreparedData, load_prepared, load_source, load_titles
from .data.given_split import read_given_split
from .data.prepare import prepare
from .data.reading import FILE_FORM, ReadingOptions
from .data.sources import NAMED_SOURCES, options_for
from .data.storage import is_prepared
from .data_recipe import GivenSplit
from .errors import DataError, RecipeError
from .evaluation import (
    Evaluation,
    ModelScorer,
    RankingMetrics,
    Scorer,
    collect_metrics,
    evaluate,
    plot_learning_curves,
    target_ranks,
    write_metrics_json,
)
from .hub import push_interactions, write_card, write_handler
from .launcher import is_main_process
from .loading import load_model_folder, load_model_recipe
from .recipes import DataRecipe, Recipe
from .repository import PushResult
from .training import TrainingResult, check_run_folder, save_model_folder, train
from .training.folder import run_folder
from .training.identity import run_identity
from .training.start import open_start
from .training.stopping import Interruptions

__all__ = ["evaluate_model", "prepare_data", "push_data", "train_and_evaluate", "with_data"]

Say = Callable[[str], None]


def with_data(recipe: Recipe, source: str | None, options: Mapping[str, Any]) -> Recipe:
    """The recipe with another source, and other options of its `data` section, where they are given.

    Args:
        recipe: What stands where nothing is given.
        source: A file, a Hub data set or prepared data.
        options: Fields of `DataRecipe` such as `user_column` or `item_titles`; None for what is not given. With
            `train_data` the files of a given split take the place of the source.

    Raises:
        DataError: Neither the recipe nor the call names a source, or both a source and the files of a split.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    files = [item.name for item in fields(GivenSplit)]
    if source is not None:
        if any(name in given for name in files):
            raise DataError("--data is one table and --train_data a part of a split: give one of the two")
        given |= {"source": source, **dict.fromkeys(files)}
    elif any(name in given for name in files):
        given |= {"source": None, "split": "given", "hold_out": "item"}
        if "train_data" in given:  # another split, with or without a validation file
            given.setdefault("validation_data", None)
    data = replace(recipe.data, **given)
    if data.split == "given":
        if not (data.train_data and data.test_data) and not is_prepared(data.source):
            raise DataError("a split that is given needs both --train_data FILE and --test_data FILE")
    elif data.source is None:
        raise DataError(f"the recipe {recipe.name!r} needs interactions: --data FILE (csv, tsv, parquet, jsonl, inter)")
    return replace(recipe, data=data)


def for_another_table(recipe: Recipe, source: str | None) -> Recipe:
    """The recipe of a trained model with those of its reading options that can hold for another table of the same shop.

    See `options_for`. Without a source, the table is the recipe's own and nothing changes.
    """
    if source is None:
        return recipe
    fitting = options_for(source, recipe.data, recipe.data.source)
    return replace(recipe, data=replace(recipe.data, **asdict(ReadingOptions()) | fitting))


def read_data(data: DataRecipe) -> Interactions:
    """The interactions that a recipe names; of a given split, with the part that each belongs to."""
    if data.split == "given":
        return read_given_split(data.train_data, data.validation_data, data.test_data, **data.reading)
    return load_source(data.source, **data.reading)


def read_titles(data: DataRecipe) -> dict[Any, str] | None:
    """The titles that a recipe names, or that stand beside its interactions; None where there are none.

    Raises:
        DataError: As `load_titles`, or a table of titles has none.
    """
    form = {}
    if data.item_titles is None:
        form = {name: value for name, value in data.reading.items() if name in FILE_FORM}
    titles = load_titles(
        data.item_titles or data.source or data.train_data,
        item_column=data.item_column,
        title_column=data.title_column,
        **form,
    )
    if titles is None and data.item_titles is not None:
        raise DataError(f"{Path(data.item_titles).name} has no column of titles; name it with --title_column.")
    return titles


def prepare_data(
    recipe: Recipe,
    output_dir: Path | None = None,
    *,
    processor: Any = None,
    add_items: bool = False,
    time_gaps: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> PreparedData:
    """Reads, filters and splits the recipe's interactions, or opens them where they are prepared already.

    Args:
        recipe: Its `data` section says what to read and how to split it.
        output_dir: Where to keep the prepared data; in memory when not given.
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
    else:
        interactions = read_data(data)
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
            item_titles=read_titles(data) if add_items or processor is None else None,
            processor=processor,
            add_items=add_items,
            time_gaps=time_gaps or bool(recipe.model.get("use_time_gaps")),
            seed=data.split_seed,
            reading=data.reading,
            overwrite=overwrite,
        )
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


def as_prepared(recipe: Recipe, data: PreparedData) -> Recipe:
    """The recipe with what the data really has: a prepared folder may be read, filtered and split in another way."""
    options = {"hold_out": "item", **data.summary["options"]}
    options["split_seed"] = options.pop("seed")
    if "reading" in data.summary:  # data that an older version prepared does not say it
        options |= asdict(ReadingOptions()) | data.summary["reading"]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    known = {name: values[name] for name in asdict(recipe.data) if name in values}
    return replace(recipe, data=replace(recipe.data, split=data.summary["split"], **known))


def reference_scorers(recipe: Recipe, data: PreparedData) -> dict[str, Scorer]:
    """The models that a result is shown beside."""
    scorers: dict[str, Scorer] = {}
    if "popularity" in recipe.evaluation.reference_models:
        scorers["popularity"] = PopularityScorer(data.item_counts)
    if "item_knn" in recipe.evaluation.reference_models:
        scorers["item_knn"] = ItemKNNScorer(data.dataset["train"], data.processor.vocab_size)
    return scorers


def _evaluations(
    recipe: Recipe, data: PreparedData, split: str, scorers: dict[str, Scorer], progress: bool
) -> dict[str, Evaluation]:
    if len(data.dataset[split]) == 0:
        raise DataError(f"no user of the {split} split can be evaluated")
    return {
        name: evaluate(
            scorer,
            data.dataset[split],
            ks=recipe.evaluation.top_k,
            protocols=recipe.evaluation.protocols,
            item_counts=data.item_counts,
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
    overwrite: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    save_minutes: float = 5.0,
    complete: Callable[[Recipe, PreparedData], Recipe] | None = None,
    progress: bool = True,
    say: Say = print,
) -> tuple[TrainingResult, PreparedData, dict[str, Evaluation]]:
    """Prepares, trains, evaluates on the test split and writes the model folder.

    The folder gets weights, vocabulary, remote code, `metrics.json`, `recipe.yaml`, `training_log.json`,
    `learning_curves.png` and a card (`README.md`); an earlier model in it is replaced only by a finished one. Started
    by `torchrun` or `accelerate launch`, all processes train, and the first one alone evaluates, writes and prints.

    Args:
        recipe: With a data source. Its `fine_tuning` section makes it start from another model, which then stands
            beside the results as `before`.
        output_dir: Where the model folder goes.
        overwrite: Whether it may replace an earlier model, or start an unfinished run again.
        resume: Whether to go on with the unfinished run in it.
        max_minutes: The training stops after so many minutes, preparation included, with a checkpoint.
        save_minutes: Minutes between two checkpoints within an epoch.
        complete: From the recipe and the data to the whole recipe, where it depends on the data (see `presets`).
        progress: Whether to show a bar and a line an epoch.
        say: Gets lines for people.

    Returns:
        The training's result, the data, and the test evaluations by model, the trained one first; no evaluations in
        processes other than the first.

    Raises:
        RunStopped: The run was stopped by a signal or by `max_minutes`, after its checkpoint was written.
    """
    if (max_minutes is not None and max_minutes <= 0) or save_minutes < 0:
        raise RecipeError(f"--max_minutes must be above 0 and --save_minutes at least 0: {max_minutes}, {save_minutes}")
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    main = is_main_process()
    if main:
        check_run_folder(output_dir, overwrite=overwrite, resume=resume)
    start, vocabulary, add_items = None, None, False
    if recipe.fine_tuning is not None:
        start = open_start(recipe.fine_tuning)
        vocabulary = None if start.settings.items == "new" else start.processor
        add_items = start.settings.items == "add"
    data = prepare_data(recipe, processor=vocabulary, add_items=add_items, say=say if main else _say_nothing)
    recipe = as_prepared(recipe, data)
    if complete is not None:
        recipe = complete(recipe, data)
        if not is_prepared(recipe.data.source):  # as if it had been prepared with the whole recipe
            data.summary["options"]["max_length"] = recipe.training.max_length
    if start is not None:
        recipe = start.fitted(recipe)
    kept = _without_folders(recipe)
    with run_folder(output_dir, run_identity(kept, data), resume) if main else nullcontext(output_dir) as finished:
        result = train(
            recipe,
            data,
            output_dir,
            compute_metrics=RankingMetrics(_validation_ks(recipe)),
            preprocess_logits_for_metrics=target_ranks,
            start=start,
            resume=resume,
            interruptions=Interruptions(deadline, 60 * save_minutes),
            progress=progress,
            say=say if main else _say_nothing,
        )
        if not main:
            return result, data, {}
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
        save_model_folder(finished, result, data, kept)
        plot_learning_curves(
            result.log_history, finished / "learning_curves.png", metric=f"eval_{recipe.training.metric}"
        )
        metrics = collect_metrics(
            test=tests[label],
            validation=validation,
            baselines={name: evaluation for name, evaluation in tests.items() if name != label},
            recipe=kept.to_dict(),
            seed=recipe.seed,
            data=data.summary,
            training=result.summary(),
        )
        write_metrics_json(finished / "metrics.json", metrics)
        write_handler(finished)
        write_card(finished, output_dir.absolute().name)
    return result, data, tests


def _say_nothing(text: str) -> None:
    pass


def evaluate_model(
    model_folder: str,
    recipe_changes: Callable[[Recipe], Recipe],
    split: str,
    *,
    progress: bool = True,
    say: Say = print,
) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """Measures a saved model on interactions, split as in its own recipe.

    Args:
        model_folder: Folder or Hub repository.
        recipe_changes: From the model's recipe to the one to evaluate with (data source, protocols, …).
        split: `"test"` or `"validation"`.

    Returns:
        Evaluations by model, the trained one first, and what `metrics.json` would hold.

    Raises:
        RecipeError: The changed recipe describes another model.
    """
    model, processor = load_model_folder(model_folder)
    trained = load_model_recipe(model_folder)
    recipe = recipe_changes(trained)
    for name, value in recipe.model.items():
        if value != trained.model.get(name):
            raise RecipeError(f"a trained model is measured as it is: --set cannot change its {name}")
    data = prepare_data(recipe, processor=processor, say=say)
    recipe = as_prepared(recipe, data)
    label = model_label(type(model))
    scorers: dict[str, Scorer] = {label: ModelScorer(model, recipe.training.max_length)}
    evaluations = _evaluations(recipe, data, split, scorers | reference_scorers(recipe, data), progress)
    metrics: dict[str, Any] = evaluations[label].tables(split)
    metrics |= {name: e.tables(split) for name, e in evaluations.items() if name != label}
    return evaluations, metrics | {"recipe": _without_folders(recipe).to_dict(), "seed": recipe.seed}


def _what_it_brought(before: Evaluation, after: Evaluation) -> str:
    metric = f"ndcg@{min(after.ks)}"
    old, new = (evaluation.table()[metric]["value"] for evaluation in (before, after))
    helped = "" if new > old else ": it did not help, keep the old model or try a lower learning_rate"
    return f"Fine-tuning brought validation {metric} from {old:.4f} to {new:.4f}{helped}"


def _validation_ks(recipe: Recipe) -> tuple[int, ...]:
    return tuple(sorted({*recipe.evaluation.top_k, int(recipe.training.metric.rpartition("@")[2])}))


def _without_folders(recipe: Recipe) -> Recipe:
    """The recipe as it is written down: files by their names alone, since a folder says more than it should."""
    source = recipe.data.source
    if source is not None and source not in NAMED_SOURCES and Path(source).exists():
        source = Path(source).name
    names = {"item_titles": recipe.data.item_titles, **recipe.data.split_files}
    files: dict[str, Any] = {name: None if file is None else Path(file).name for name, file in names.items()}
    fine_tuning = recipe.fine_tuning
    if fine_tuning is not None and Path(fine_tuning.from_model).is_dir():
        fine_tuning = replace(fine_tuning, from_model=Path(fine_tuning.from_model).resolve().name)
    data = replace(recipe.data, source=source, **files)
    return replace(recipe, data=data, fine_tuning=fine_tuning)
