"""What `glintru compare` does: models by name become the rows of a comparison on one table, which runs and is shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..data import PreparedData
from ..data.sources import NAMED_SOURCES
from ..errors import DataError, RecipeError, nearest_names
from ..evaluation import Evaluation, against
from ..jobs import prepare_data, reference_names
from ..models.auto import MODELS, registered_name
from ..recipe import (
    REFERENCE_MODELS,
    Recipe,
    change_recipe,
    changed_keys,
    list_recipes,
    load_model_recipe,
    load_recipe,
    read_yaml,
)
from ..recipe.resolve import HOW_TO_READ, as_prepared, data_facts, with_data
from ..recipe.rule import blank_recipe, data_shape, preset
from .estimate import declared_seconds
from .page import terminal_table, write_page
from .plan import Comparison, Search, draw_settings
from .queue import NOTHING_LEFT, Job, check_data, run_queue
from .results import Results
from .rows import Report, verdict
from .run_trial import data_counts
from .trials import FILES, METRICS

__all__ = ["check_same_split", "compare_trained", "declare", "run_comparison", "search_space"]

Say = Callable[[str], None]
RUNGS = (1 / 8, 3 / 8)  # of the epochs of a measured run, as a search of nine settings has in the published protocol


def declare(
    source: str | None,
    models: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    changes: Sequence[str] = (),
    seeds: Sequence[int] = (1, 2, 3),
    search: int = 0,
    space: Path | None = None,
    say: Say = print,
) -> Comparison:
    """The comparison of some models on one table: each with the settings that the package's rule chooses for it there.

    Args:
        source: The interactions, as `glintru train --data` takes them; None where `options` names a given split.
        models: Names of models, a model in a file of one's own as `file.py:Class`, or recipes by name or file, whose
            settings then stand.
        options: Fields of `DataRecipe`, see `resolve.with_data`.
        changes: `key=value` texts that change the recipe of every model.
        seeds: Seeds of the runs that are measured.
        search: How many settings to try for each model, on validation; 0 tries none.
        space: A YAML file with a list of values for each key that the search changes, instead of `search_space`.
        say: Gets what was recognised and counted in the table, for people.

    Raises:
        RecipeError: There is no such model, or a value is out of range.
        DataError: The table cannot be read, or nobody in it can be tested.
    """
    named = _named(models, changes)
    if not seeds or len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds must be different numbers, as in 1,2,3, but got {', '.join(map(str, seeds))}")
    if search == 1 or search < 0:
        raise RecipeError(f"--search must be at least 2 settings, but got {search}")
    if space is not None and not search:
        raise RecipeError("--space is the space of a search: give --search N too, the number of settings to try")
    base = with_data(next(iter(named.values()), blank_recipe()), source, options or {})
    if base.training.metric not in METRICS:
        raise RecipeError(f"a comparison validates by {', '.join(METRICS)}, but got {base.training.metric!r}")
    data = prepare_data(base, time_gaps=True, say=say)
    for split in ("validation", "test"):
        if len(data.dataset[split]) == 0:
            raise DataError(f"no user of the {split} split can be evaluated")
    base = as_prepared(base, data_facts(data))
    rows: dict[str, Recipe | Search] = {}
    for name, recipe in named.items():
        whole = _completed(name, recipe, base, data, changes)
        if search:
            given = {key.rpartition(".")[2] for key in changed_keys(whole, changes)}
            values = _space(space) if space else search_space(whole)
            rows[name] = _search(whole, {key: values[key] for key in values if key not in given}, search)
        else:
            rows[name] = whole
    name = _table_name(base)
    references = tuple(reference_names(base, data))
    seconds = {name: declared_seconds(data_shape(data))}
    return Comparison(
        data={name: base},
        rows={name: rows},
        references={name: references},
        seeds=tuple(seeds),
        metric=base.training.metric,
        counts={name: data_counts(data)},
        pass_seconds=seconds,
        model_files=tuple(text for text in models if ".py:" in text),
    )


def _named(models: Sequence[str], changes: Sequence[str]) -> dict[str, Recipe]:
    """The one place where the name of a row becomes a recipe, complete or to be completed from the data."""
    if not models:
        raise RecipeError("--models must name at least one model, as in glintru,sasrec")
    found: dict[str, Recipe] = {}
    for text in map(registered_name, models):
        name = Path(text).stem if text.endswith((".yaml", ".yml")) else text
        if name in found or name in REFERENCE_MODELS:
            why = "stands twice" if name in found else "is not trained and stands in every comparison"
            raise RecipeError(f"--models: {text} {why}")
        if text in MODELS:
            found[name] = change_recipe(blank_recipe(), [f"model.name={text}", *changes])
        elif name != text or text in list_recipes():
            found[name] = load_recipe(text, changes)
        elif Path(text).is_dir():
            raise RecipeError(f"{text} is a trained model; glintru evaluate A B --data FILE compares trained models")
        else:
            raise RecipeError(f"There is no model {text!r}; {nearest_names(text, [*MODELS, *list_recipes()])}")
    return found


def _completed(name: str, recipe: Recipe, base: Recipe, data: PreparedData, changes: Sequence[str]) -> Recipe:
    """The recipe of a row on the comparison's data, with what the rule chooses where a model alone was named."""
    recipe = replace(recipe, data=base.data, evaluation=base.evaluation)
    if name in MODELS:
        recipe, _ = preset(data_shape(data), recipe, [f"model.name={name}", *changes])
        recipe = replace(recipe, evaluation=base.evaluation)
    return replace(recipe, name=name, training=replace(recipe.training, metric=base.training.metric))


def _table_name(recipe: Recipe) -> str:
    data = recipe.data
    source = data.source or data.train_data or "data"
    return source if source in NAMED_SOURCES else Path(source).name.split(".")[0] or "data"


def search_space(recipe: Recipe) -> dict[str, list[Any]]:
    """The values that a search tries around a recipe, by key; `dropout` stands for all dropouts of a model."""
    rate = recipe.training.learning_rate
    dropout = max((value for key, value in recipe.model.items() if key.endswith("_dropout")), default=0.2)
    return {
        "learning_rate": [rate / 2, rate, 2 * rate],
        "dropout": [max(round(dropout - 0.1, 2), 0.0), dropout, min(round(dropout + 0.1, 2), 0.9)],
        "hidden_size": [64, 128],
        "num_hidden_layers": [1, 2],
        "weight_decay": [0.0, 0.01, 0.1],
        "scores": [{"normalize_scores": False, "temperature": 1.0}, {"normalize_scores": True, "temperature": 0.07}],
    }


def _space(file: Path) -> dict[str, list[Any]]:
    space = read_yaml(file)
    if not isinstance(space, dict) or not all(isinstance(values, list) and values for values in space.values()):
        raise RecipeError(
            f"--space {file} must hold a list of values for each key, as in 'learning_rate: [1e-3, 2e-3]'"
        )
    return space


def _search(recipe: Recipe, space: Mapping[str, list[Any]], count: int) -> Search:
    """The recipe as it is, and draws from the space around it."""
    epochs = recipe.training.num_train_epochs
    rungs = sorted({max(1, math.ceil(share * epochs)) for share in RUNGS})
    return Search(recipe, ({}, *draw_settings(space, count - 1, seed=0)), tuple(rungs), epochs)


def run_comparison(
    comparison: Comparison,
    output_dir: Path,
    *,
    workers: int = 1,
    max_minutes: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    say: Say = print,
) -> list[Path]:
    """Runs what is left of a comparison and writes what it found.

    The folder gets `comparison.md`, `comparison.json`, `comparison.png`, a recipe of each model in `recipes/`, and in
    `trials/` a line a run with the ranks of the test users. What is there does not run again.

    Args:
        comparison: From `declare`.
        output_dir: The folder.
        workers: How many runs at the same time, one core each.
        max_minutes: After so many minutes runs stop, with a checkpoint from which the same call goes on.
        retry_failed: Whether runs that failed run again.
        dry_run: Whether only to say what would run and about how long it would take.
        say: Gets lines for people.

    Returns:
        The page, the numbers and the chart; nothing after a dry run or where nothing has run yet.

    Raises:
        RecipeError: An option is out of range.
        DataError: The interactions cannot be read, or are not those of the folder's results.
    """
    check_options(workers, max_minutes)
    (name,) = comparison.data
    results = Results(output_dir / "trials")
    if retry_failed and not dry_run:
        results.forget_failures(name)
    job = Job(comparison, results.folder, None if max_minutes is None else time.monotonic() + 60 * max_minutes, workers)
    check_data(results, name, comparison.counts[name], bool(comparison.data[name].evaluation.recommend_seen))
    left = job.describe()
    say(left)
    if dry_run:
        return []
    if left != NOTHING_LEFT:
        run_queue(job, say)
    failed = [line for line in results.read(name).values() if line["status"] == "failed"]
    if failed:
        say(f"{len(failed)} of the runs failed: {failed[0]['error']} (--retry_failed runs them again)")
    report = Report(name, comparison, results)
    if not report.rows:
        return []
    first = next(iter(comparison.rows[name]))
    written = write_page(report, first, output_dir, _settings(comparison, name))
    validation = results.validation(name, comparison.metric)
    for row in comparison.rows[name]:
        if recipe := comparison.row_recipe(name, row, validation):
            (output_dir / "recipes").mkdir(exist_ok=True)
            no_files: dict[str, Any] = dict.fromkeys(FILES)
            anywhere = replace(recipe, name=row, data=replace(recipe.data, **no_files))
            anywhere.save(output_dir / "recipes" / f"{row}.yaml")
    say(f"\n{terminal_table(report, first)}")
    say(f"\nWritten: {', '.join(str(file) for file in written)}")
    return written


def check_options(workers: int, max_minutes: float | None) -> None:
    """Refuses options out of range.

    Raises:
        RecipeError: There are fewer than 1 worker, or no minutes.
    """
    if workers < 1 or (max_minutes is not None and max_minutes <= 0):
        raise RecipeError(f"--workers must be at least 1 and --max_minutes above 0: {workers}, {max_minutes}")


def _settings(comparison: Comparison, name: str) -> str:
    searches = [entry for entry in comparison.rows[name].values() if isinstance(entry, Search)]
    if searches:
        return f"has the best of {len(searches[0].settings)} settings that were tried for it on validation"
    return "has the settings of the package's rule for such data, or those of the recipe that names it"


def check_same_split(models: Sequence[str]) -> None:
    """Refuses trained models that cannot be compared, because their data was split or filtered in different ways.

    Args:
        models: Model folders or Hub repositories, the one that the others are compared with first.

    Raises:
        RecipeError: The recipes of two models differ, or a model stands twice.
        ModelFolderError: A folder holds no recipe.
    """
    if len(set(models)) < len(models):
        raise RecipeError(f"a model is not compared with itself: {', '.join(models)}")
    first = load_model_recipe(models[0]).data
    for model in models[1:]:
        own = load_model_recipe(model).data
        for item in fields(own):
            one, other = (getattr(data, item.name) for data in (first, own))
            if one != other and item.name not in HOW_TO_READ:
                raise RecipeError(
                    f"{models[0]} was trained with data.{item.name} {one!r} and {model} with {other!r}: they cannot be "
                    "compared, for what one is tested on the other may have learned from"
                )


def compare_trained(
    measured: Mapping[str, Evaluation], metrics: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The paired differences of trained models to the first of them, over the same test users.

    Args:
        measured: The evaluation of each model by its name, all on one table.
        metrics: The metrics of each model, from `jobs.evaluate_model`.

    Returns:
        For each model but the first `{"to": …, "metric": …, "value": …, "low": …, "high": …, "is": …}`: the mean
        difference, its 95 % interval over users, and what may be said of it.

    Raises:
        DataError: The models were not measured on the same users, targets, candidates and way of ranking.
    """
    first, *others = measured
    found: dict[str, dict[str, Any]] = {}
    for name in others:
        for what in ("candidates", "targets"):
            if metrics[name]["ranked"][what] != metrics[first]["ranked"][what]:
                words = "rank the same items" if what == "candidates" else "have the same test users and targets"
                raise DataError(f"{first} and {name} do not {words} on this table, so their figures do not compare")
        if measured[name].main != measured[first].main:
            raise DataError(
                f"one of {first} and {name} recommends past items again: give both --set recommend_seen=true or false"
            )
        difference = against(measured[name], {first: measured[first]})[first]
        words = verdict(difference["low"], difference["high"])
        found[name] = {"to": first, "metric": f"ndcg@{min(measured[name].ks)}", **difference, "is": words}
    return found
