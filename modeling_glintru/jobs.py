"""What the commands do: prepare, train, evaluate and fine-tune, from a recipe to a folder."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .data import Interactions, PreparedData, load_prepared, load_source, load_titles
from .data.files import is_prepared
from .data.prepare import prepare
from .data.prepared import with_everything
from .data.reading import FILE_FORM, ReadingOptions
from .data.sources import NAMED_SOURCES, options_for, read_given_split
from .data.summary import RECURRING
from .errors import DataError, RecipeError
from .evaluation import (
    REFERENCE_TITLES,
    Evaluation,
    ItemKNNScorer,
    ModelScorer,
    OwnItemsScorer,
    PopularityScorer,
    RankingMetrics,
    Scorer,
    against,
    collect_metrics,
    evaluate,
    no_better_than,
    plot_learning_curves,
    target_ranks,
    write_metrics_json,
)
from .hub import push_interactions, write_card, write_handler
from .hub.repository import PushResult
from .machine import is_main_process, pick_device
from .models.auto import model_label
from .models.loading import find_data_checksum, load_model_folder
from .recipe import (
    NEW_WEIGHTS,
    DataRecipe,
    FineTuningRecipe,
    GivenSplit,
    Recipe,
    change_recipe,
    changed_keys,
    find_model_recipe,
    load_model_recipe,
    load_recipe,
)
from .rule import blank_recipe, data_shape, preset
from .training import TrainingResult, check_run_folder, save_model_folder, train
from .training.folder import RunFolder, run_folder
from .training.identity import data_checksum, run_identity
from .training.refit import refit_in_time, warn_of_refitted, with_refit
from .training.start import model_section, open_start
from .training.stopping import Interruptions

__all__ = [
    "evaluate_model",
    "fine_tuning_recipe",
    "gentler",
    "prepare_data",
    "push_data",
    "train_and_evaluate",
    "with_data",
]

Say = Callable[[str], None]
# What only says where the table is and how it is read: it changes no target.
HOW_TO_READ = (
    *("source", "train_data", "validation_data", "test_data", "item_titles", "title_column"),
    *("user_column", "item_column", "time_column", "time_format", *FILE_FORM),
)


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
        if recipe.data.split not in (DataRecipe.split, "given"):
            raise DataError(f"the files of a given split are its parts: leave split={recipe.data.split} out")
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


def read_titles(data: DataRecipe, say: Say = print) -> dict[Any, str] | None:
    """The titles that a recipe names, or that stand beside its interactions; None where there are none.

    Titles that nobody asked for do not matter: where they cannot be read, `say` gets a note, and there are none.

    Raises:
        DataError: As `load_titles`, or a table of titles has none.
    """
    form: dict[str, Any] = {}
    if data.item_titles is None:
        form = {name: value for name, value in data.reading.items() if name in FILE_FORM}
    table = data.item_titles or data.source or data.train_data
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
        if processor is not None:
            prepared.processor.recommend_seen = processor.recommend_seen
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
            item_titles=read_titles(data, say) if add_items or processor is None else None,
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
    evaluation = replace(recipe.evaluation, recommend_seen=data.processor.recommend_seen)
    return replace(recipe, data=replace(recipe.data, split=data.summary["split"], **known), evaluation=evaluation)


def _prepared_otherwise(wanted: Recipe, found: Recipe) -> str | None:
    """A line on what a recipe sets and a prepared folder has in another way; None where there is nothing to say."""
    default = DataRecipe()
    differing = [
        f"{name} {getattr(found.data, name)!r} (not {value!r})"
        for name, value in asdict(wanted.data).items()
        if value != getattr(found.data, name) and value != getattr(default, name)
    ]
    if not differing:
        return None
    return (
        f"Note      {wanted.data.source} was prepared with {', '.join(differing)} and is used as it is: prepare it "
        "again to change that"
    )


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
        name: evaluate(
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
    overwrite: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    save_minutes: float = 5.0,
    refit: bool = False,
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
        max_minutes: The run is to be done after so many minutes, preparation included. What is promised: the training
            stops so long before that the final measuring fits in, by what the first validation took. Where it stops
            before any epoch is validated, and in the time of writing the folder, the run takes a little longer. The
            folder then holds the model of the best epoch so far with its figures, and checkpoints for `resume`.
        save_minutes: Minutes between two checkpoints within an epoch.
        refit: Whether to train once more on everything, held-out items and users included, once the epoch is found, and
            to keep that model with the figures of the measured one; as `training.refit` in the recipe.
        complete: From the recipe and the data to the whole recipe, where it depends on the data (see `presets`).
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
    data = prepare_data(recipe, processor=vocabulary, add_items=add_items, say=say if main else _say_nothing)
    wanted, recipe = recipe, as_prepared(recipe, data)
    if main and (other := _prepared_otherwise(wanted, recipe)):
        say(other)
    if complete is not None:
        recipe = complete(recipe, data)
        if not is_prepared(recipe.data.source):  # as if it had been prepared with the whole recipe
            data.summary["options"]["max_length"] = recipe.training.max_length
    if start is not None:
        recipe = start.fitted(recipe)
    if refit:
        recipe = replace(recipe, training=replace(recipe.training, refit=True))
    everything = with_everything(data) if recipe.training.refit else None
    kept = _without_folders(recipe)
    identity = run_identity(kept, data)
    with run_folder(output_dir, identity, resume) if main else nullcontext(RunFolder(output_dir)) as run:
        options: dict[str, Any] = {
            **{"start": start, "resume": resume, "progress": progress, "say": say if main else _say_nothing},
            "interruptions": Interruptions(deadline, 60 * save_minutes, _passes_after(recipe, data)),
        }
        result = train(
            recipe,
            data,
            output_dir,
            compute_metrics=RankingMetrics(_validation_ks(recipe)),
            preprocess_logits_for_metrics=target_ranks,
            keep_best=True,
            **options,
        )
        if result.stopped is not None:
            options["say"](f"Stopped   by --max_minutes after {result.stopped}: epoch {result.best_epoch:g} is kept")
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
        result = with_refit(result, last)
        kept = replace(kept, training=replace(kept.training, refit=last is not None))
        if last is not None:
            data.processor.item_counts = last.item_counts
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
            data_checksum=data_checksum(data),
            training=result.summary(),
            **result.outcome(),
        )
        write_metrics_json(finished / "metrics.json", metrics)
        write_handler(finished)
        weakness = no_better_than(metrics.get("against", {}), min(kept.evaluation.top_k))
        write_card(finished, output_dir.absolute().name, REFERENCE_TITLES, weakness)
        # A model that is fine-tuned in place has no beginning any more to go on from.
        run.goes_on = result.stopped is not None and not _in_place(recipe, output_dir)
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
    as_is: bool = False,
    device: str | None = None,
    progress: bool = True,
    say: Say = print,
) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """Measures a saved model on interactions, split as in its own recipe.

    Args:
        model_folder: Folder or Hub repository.
        recipe_changes: From the model's recipe to the one to evaluate with (data source, protocols, …).
        split: `"test"` or `"validation"`.
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
    data = prepare_data(recipe, processor=processor, say=say)
    wanted, recipe = recipe, as_prepared(recipe, data)  # a prepared folder may be split in another way than it is told
    reason = _trained_on(trained, wanted) or _trained_on(trained, recipe)
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
    metrics: dict[str, Any] = {"main": measured.main_table(split), "recurring_targets": measured.recurring}
    metrics |= {"trained_on_targets": reason is not None, "same_data": same_data} | measured.tables(split)
    references = {name: e for name, e in evaluations.items() if name != label}
    metrics |= {name: e.tables(split) for name, e in references.items()} | {"against": against(measured, references)}
    return evaluations, metrics | {"recipe": _without_folders(recipe).to_dict(), "seed": recipe.seed}


def _trained_on(trained: Recipe, recipe: Recipe) -> str | None:
    """Why a model of the first recipe has trained on some targets of the second; None where it has not."""
    if trained.training.refit:
        return "the model was trained once more on everything (--refit)"
    for name, value in asdict(recipe.data).items():
        before = getattr(trained.data, name)
        if value == before or name in HOW_TO_READ:
            continue
        if name.endswith("_fraction") and recipe.data.split == "leave_one_out":
            continue
        if name == "split_seed" and recipe.data.split != "user":
            continue
        return f"the model was trained with data.{name} {before!r}, and this measures with {value!r}"
    return None


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


# Chosen on validation, see docs/fine_tuning.md: where rates were as good, the smaller one, which forgets less.
LEARNING_RATE, LORA_LEARNING_RATE = 0.25, 1.0  # times that of the first training; adapters begin at zero
EPOCHS, PATIENCE = 0.25, 3


def fine_tuning_recipe(
    from_model: str | None,
    recipe: str | None,
    items: str | None,
    overrides: Sequence[str],
    source: str | None = None,
) -> tuple[Recipe, Callable[[Recipe, PreparedData], Recipe] | None]:
    """What a run that starts from a model is made of.

    The settings are those of `recipe` where one is given, and otherwise gentler ones than the model was trained with;
    for a model without a recipe, than its data would be.

    Args:
        from_model: Folder or Hub repository; None where `recipe` says it.
        recipe: Name or file.
        items: See `FineTuningRecipe`.
        overrides: `key=value` texts.
        source: The new interactions, where they are one table; what the model's recipe says on how to read its own
            counts for them too, as far as it can (see `data.sources.options_for`).

    Returns:
        The recipe, without data source unless `recipe` has one, and how to complete it from the data, if it has to be.

    Raises:
        RecipeError: See `load_recipe`.
        ModelFolderError: See `load_model_folder`.
    """
    if recipe is not None:
        chosen = load_recipe(recipe)
        return change_recipe(_starting(chosen, from_model, items), overrides), None
    if from_model is None:
        raise RecipeError("--items says what happens to the items of a model: give --from MODEL too")
    trained = find_model_recipe(from_model)
    if trained is None:
        section = model_section(load_model_folder(from_model)[0])
        chosen = replace(blank_recipe(), model=section, fine_tuning=FineTuningRecipe(from_model))
        new = (f"training.{name}=0" for name in NEW_WEIGHTS)
        given = [*overrides, *new, *(f"model.{key}=" for key in section)]
        blank = change_recipe(_starting(chosen, from_model, items), overrides)
        return blank, lambda known, data: gentler(preset(data_shape(data), known, given)[0], given)
    # Its data is another one; columns are recognised anew where the shop is another one.
    files: dict[str, Any] = dict.fromkeys(item.name for item in fields(GivenSplit))
    data = replace(trained.data, source=None, item_titles=None, title_column=None, **files)
    if data.split == "given":
        data = replace(data, split="leave_one_out")
    if items == "new" or source is not None:
        fitting = {} if items == "new" else options_for(source, trained.data, trained.data.source)
        data = replace(data, **asdict(ReadingOptions()) | fitting)
    chosen = replace(
        trained,
        name=trained.name.removesuffix("-tuned") + "-tuned",
        description=f"Fine-tuned from {trained.name}.",
        data=data,
        training=replace(trained.training, refit=False),  # costs a training more, so it is asked for each time
        fine_tuning=FineTuningRecipe(from_model),
    )
    chosen = change_recipe(_starting(chosen, from_model, items), overrides)
    if trained.fine_tuning is None:
        chosen = gentler(chosen, overrides)
    return chosen, None


def _starting(recipe: Recipe, from_model: str | None, items: str | None) -> Recipe:
    given: dict[str, Any] = {} if from_model is None else {"from_model": from_model}
    if items is not None:
        given["items"] = items
    off: dict[str, Any] = dict.fromkeys(NEW_WEIGHTS, 0.0)  # there are embeddings already
    recipe = replace(recipe, training=replace(recipe.training, **off))
    if recipe.fine_tuning is not None:
        return replace(recipe, fine_tuning=replace(recipe.fine_tuning, **given))
    return replace(recipe, fine_tuning=FineTuningRecipe(**given))


def gentler(recipe: Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with the settings of a fine-tuning where they are not given.

    A smaller learning rate and fewer epochs, without warm-up. Items that are learned anew take as long as ever, so
    that with `items: new` all stays as it is.
    """
    settings = recipe.fine_tuning
    if settings is None:
        raise RecipeError("a recipe without fine_tuning section is not that of a fine-tuning")
    if settings.items == "new":
        return recipe
    training = recipe.training
    factor = LORA_LEARNING_RATE if settings.lora_rank else LEARNING_RATE
    values: dict[str, Any] = {
        "learning_rate": training.learning_rate * factor,
        "num_train_epochs": math.ceil(training.num_train_epochs * EPOCHS),
        "warmup_steps": 0,
        "early_stopping_patience": PATIENCE,
    }
    given = changed_keys(recipe, overrides)
    values = {name: value for name, value in values.items() if f"training.{name}" not in given}
    return replace(recipe, training=replace(training, **values))
