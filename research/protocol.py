"""What this repository's comparison declares before it runs: data sets, models, one search space, budgets and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from modeling_glintru.comparison.plan import (
    DROPOUT,
    Comparison,
    Search,
    Validation,
    best_trials,
    draw_settings,
    finished,
    flat,
    with_setting,
)
from modeling_glintru.comparison.trials import FINAL, METRICS, Step, seeded
from modeling_glintru.data.sources import NAMED_SOURCES
from modeling_glintru.errors import DataError, RecipeError, nearest_names
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.losses import LossConfig
from modeling_glintru.recipe import (
    DEFAULT_MODEL,
    REFERENCE_MODELS,
    DataRecipe,
    Recipe,
    TrainingRecipe,
    change_recipe,
    from_mapping,
    list_recipes,
    load_recipe,
    model_fields,
    read_yaml,
)

__all__ = ["ABLATION", "RECORDS", "DataProtocol", "Protocol", "Settings", "Study", "load_protocol", "select"]

FOLDER = Path(__file__).resolve().parent
RECORDS = FOLDER / "records" / "quality"
ABLATION = "ablation"  # the stage of runs that take a row apart
SETTABLE = {DROPOUT} | {item.name for item in fields(TrainingRecipe)} - {"num_train_epochs", "metric"}


@dataclass(frozen=True)
class Settings:
    """Values for all trials, and lists to draw from.

    Args:
        fixed: Key of a recipe to value; the key `dropout` stands for all dropouts of a model, and a model leaves out
            the keys that it does not have.
        space: Key to the list of its values; a value that stands twice is drawn twice as often. A value may be a
            mapping of several keys that belong together, whatever the key above it is called.
    """

    fixed: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, values in self.space.items():
            if not isinstance(values, list) or not values:
                raise RecipeError(f"space.{key} must be a list of values, but got {values!r}.")
        known = known_settings()
        drawn = (flat({key: value}) for key, values in self.space.items() for value in values)
        for key in chain(self.fixed, *drawn):
            if key not in known:
                raise RecipeError(f"There is no setting {key!r} in a comparison; {nearest_names(str(key), known)}")


@dataclass(frozen=True)
class DataProtocol:
    """One data set: its source and its budget. Settings here go before the protocol's own.

    Args:
        interactions: The `data` section of the recipes; `source` may be left to the command line.
        trials: Settings tried for each model.
        rungs: Epochs of each rung of successive halving, rising.
        epochs: Epochs of a final run, at most.
        fixed, space: See `Settings`.
        prefixes: The same (`fixed`, `space`) for models that learn from one prefix an example.
        models: Model to fixed settings of its own here.
        start: The first settings of the search, given instead of drawn; what a setting leaves out is drawn.
        seconds_per_epoch: Model to CPU seconds at `hidden_size` 64, for the estimate before anything has run.
        presets: Name to recipe (name or file): rows with fixed settings.
    """

    interactions: dict[str, Any] = field(default_factory=dict)
    trials: int = 9
    rungs: tuple[int, ...] = (3, 9)
    epochs: int = 24
    fixed: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    prefixes: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    start: tuple[dict[str, Any], ...] = ()
    seconds_per_epoch: dict[str, Any] = field(default_factory=dict)
    presets: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.rungs or min(self.rungs) < 1 or list(self.rungs) != sorted(set(self.rungs)):
            raise RecipeError("a comparison needs trials of at least 1 and rungs that rise, as in [3, 9].")
        if len(self.start) > self.trials:
            raise RecipeError(f"start gives {len(self.start)} settings, but there are only {self.trials} trials.")
        if self.epochs < self.rungs[-1]:
            raise RecipeError(f"epochs must be at least the last rung, but got {self.epochs} and {self.rungs[-1]}.")

    @property
    def recipe(self) -> DataRecipe:
        """The `data` section of the recipes of its trials."""
        return from_mapping(DataRecipe, "interactions", self.interactions)


@dataclass(frozen=True)
class Protocol:
    """All of a comparison.

    Args:
        name: Short name.
        description: One sentence for people.
        metric: The validation metric that chooses epoch and setting.
        seed: Of the draws from the space.
        tuning_seed: Seed of the trials.
        final_seeds: Seeds of the final runs of each row.
        keep_one_in: One in so many settings goes on to the next rung.
        models: Model to fixed settings of its own, in the order of the queue.
        references: Rows that are not trained.
        fixed, space, prefixes: As in `DataProtocol`, for all data sets.
        ablations: Name to a list of overrides (`key=value`) of the recipe that is taken apart.
        ablation_seeds: Seeds of the ablations.
        data: Name to `DataProtocol`, in the order of the queue.
    """

    name: str = "comparison"
    description: str = ""
    metric: str = "ndcg@10"
    seed: int = 0
    tuning_seed: int = 0
    final_seeds: tuple[int, ...] = (1, 2, 3)
    keep_one_in: int = 3
    models: dict[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ("popularity", "item_knn")
    fixed: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    prefixes: dict[str, Any] = field(default_factory=dict)
    ablations: dict[str, Any] = field(default_factory=dict)
    ablation_seeds: tuple[int, ...] = (1,)
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise RecipeError(f"metric must be one of {', '.join(METRICS)}, but got {self.metric!r}.")
        for name in self.models:
            known_model(name)
        for name in self.references:
            if name not in REFERENCE_MODELS:
                raise RecipeError(f"references must be of {', '.join(REFERENCE_MODELS)}, but got {name!r}.")
        if not self.final_seeds or not self.ablation_seeds or self.keep_one_in < 2:
            raise RecipeError("a comparison needs final_seeds, ablation_seeds and keep_one_in of at least 2.")
        data = {name: from_mapping(DataProtocol, f"data.{name}", content) for name, content in self.data.items()}
        object.__setattr__(self, "data", data)
        for part in data.values():
            for model in self.models:
                self.settings(part, model)  # unknown keys are found now
        for overrides in self.ablations.values():
            changes_some_model(overrides)

    def data_set(self, name: str) -> DataProtocol:
        """The data set of that name.

        Raises:
            RecipeError: There is none.
        """
        if name not in self.data:
            raise RecipeError(f"The protocol {self.name!r} has no data {name!r}; {nearest_names(name, self.data)}")
        return self.data[name]

    def settings(self, data: DataProtocol, model: str) -> Settings:
        """Fixed values and space of one model on one data set: the more special goes before the more general."""
        layers: list[Mapping[str, Any]] = [{"fixed": self.fixed, "space": self.space}]
        prefixes = MODELS[model].training_examples == "prefixes"
        layers += [self.prefixes] if prefixes else []
        layers += [{"fixed": self.models.get(model)}, {"fixed": data.fixed, "space": data.space}]
        layers += [data.prefixes] if prefixes else []
        layers += [{"fixed": data.models.get(model)}]
        fixed: dict[str, Any] = {}
        space: dict[str, Any] = {}
        for layer in layers:
            part = from_mapping(Settings, "settings", {key: value or {} for key, value in layer.items()})
            fixed, space = {**fixed, **part.fixed}, {**space, **part.space}
        return Settings(fixed, space)

    def search(self, data: DataProtocol, model: str) -> Search:
        """The search of one model on one data set; models with the same space try the same settings."""
        own = self.settings(data, model)
        settings = draw_settings(own.space, data.trials, self.seed)
        for setting, given in zip(settings, data.start, strict=False):
            setting |= {key: value for key, value in given.items() if value in own.space.get(key, ())}
        blank = Recipe(name=model, data=data.recipe, model={"name": model}, training=TrainingRecipe(metric=self.metric))
        base = with_setting(blank, own.fixed, epochs=data.epochs, seed=self.tuning_seed)
        return Search(base, tuple(settings), data.rungs, data.epochs, self.keep_one_in, self.tuning_seed)

    def pass_seconds(self, data: DataProtocol) -> dict[str, float]:
        """What `seconds_per_epoch` declares, for a whole pass over the data."""
        shares = {model: (own or {}).get("prefix_share", 1.0) for model, own in data.models.items()}
        return {model: seconds / shares.get(model, 1.0) for model, seconds in data.seconds_per_epoch.items()}


@cache
def known_settings() -> frozenset[str]:
    """The keys that a setting may have: those of training, of the loss, and of any model."""
    of_loss = {"loss", *LossConfig.__dataclass_fields__}
    return frozenset(SETTABLE.union(of_loss, *(model_fields(name) for name in MODELS)) - {"name"})


def changes_some_model(overrides: Sequence[str]) -> None:
    """Refuses an ablation that no model has, or could be trained with from its defaults.

    Raises:
        RecipeError: What is wrong with it for the package's own model.
    """
    errors = {}
    for model in MODELS:
        try:
            change_recipe(Recipe(name="ablation", model={"name": model}), overrides)
            return
        except RecipeError as error:
            errors[model] = error
    raise errors[DEFAULT_MODEL]


def known_model(name: str) -> None:
    """Refuses a model that there is not.

    Raises:
        RecipeError: There is no such model.
    """
    if name not in MODELS:
        raise RecipeError(f"There is no model {name!r}; {nearest_names(str(name), MODELS)}")


def load_protocol(file: Path = FOLDER / "protocol.yaml") -> Protocol:
    """Reads a protocol.

    Raises:
        RecipeError: The file cannot be read, or something in it is not understood.
    """
    return from_mapping(Protocol, "the protocol", read_yaml(Path(file)))


def research_recipe(name_or_path: str) -> Recipe:
    """A recipe of the package or of `research/recipes`, by name, or of any file."""
    own = FOLDER / "recipes" / f"{name_or_path}.yaml"
    return load_recipe(own if own.is_file() and name_or_path not in list_recipes() else name_or_path)


@dataclass(frozen=True)
class Study(Comparison):
    """The comparison that a protocol declares, with ablations and first looks.

    Args:
        protocol: The protocol.
        ablate: Rows that are taken apart.
        first_look: Whether a model gets, instead of its search, one run with the setting that the best search on the
            data set chose, where there is one.
    """

    protocol: Protocol = field(default_factory=Protocol)
    ablate: tuple[str, ...] = ()
    first_look: bool = False

    def plan(self, validation: Validation) -> list[Step]:
        """All steps, most urgent first; ablations come last."""
        steps = super().plan(validation)
        for d, (data, rows) in enumerate(self.rows.items()):
            for row in self.ablate:
                if row not in rows:
                    raise RecipeError(f"There is no row {row!r} to take apart; {nearest_names(row, rows)}")
                steps += self._ablations(data, row, validation, d)
        return sorted(steps, key=lambda step: step.urgency)

    def row_steps(self, data: str, row: str, validation: Validation, place: tuple[int, int]) -> list[Step]:
        """As in every comparison, but for a first look."""
        entry = self.rows[data][row]
        if self.first_look and isinstance(entry, Search):
            last = entry.steps(data, row, validation, ())[-1]
            if not finished(last, validation) and (look := self._look(data, row, entry, validation)):
                return [replace(look, urgency=(1, *place, 1))]
        return super().row_steps(data, row, validation, place)

    def _look(self, data: str, row: str, search: Search, validation: Validation) -> Step | None:
        """The setting of the best search that has ended, with the first seed; None where none has ended."""
        part = self.protocol.data_set(data)
        lasts = [self.protocol.search(part, other).steps(data, other, validation, ())[-1]
                 for other in self.protocol.models]  # fmt: skip
        ended = [trial for last in lasts if finished(last, validation) for trial in last.trials]
        best = best_trials(Step(data, row, FINAL, 0, tuple(ended)), validation, 1)
        if not best:
            return None
        setting = search.settings[best[0].index]
        (trial,) = seeded(data, row, FINAL, search.recipe(setting), self.seeds[:1], setting)
        return Step(data, row, FINAL, search.epochs, (replace(trial, setting_of=best[0].row),))

    def _ablations(self, data: str, row: str, validation: Validation, place: int) -> list[Step]:
        seeds = self.protocol.ablation_seeds
        recipe, steps = self.row_recipe(data, row, validation), []
        for a, (name, overrides) in enumerate(self.protocol.ablations.items()):
            label, urgency = f"{row}: {name}", (3, place, a)
            if recipe is None:
                epochs = self.protocol.data_set(data).epochs
                steps.append(Step(data, label, ABLATION, epochs, (), len(seeds), urgency))
            elif (changed := taken_apart(recipe, overrides)) is not None:
                trials = seeded(data, label, ABLATION, changed, seeds)
                steps.append(Step(data, label, ABLATION, trials[0].epochs, trials, 0, urgency))
        return steps


def taken_apart(recipe: Recipe, overrides: Sequence[str]) -> Recipe | None:
    """A row's recipe with the change of an ablation; None where that does not go with it or leaves it as it is."""
    try:
        changed = change_recipe(recipe, overrides)
    except RecipeError:  # it does not go with the row's other settings, or its model has no such part
        return None
    return None if compute_alike(changed, recipe) else changed


def compute_alike(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes compute the same, defaults written out or not."""
    return _parts(one) == _parts(other) and replace(one, model={}) == replace(other, model={})


def _parts(recipe: Recipe) -> dict[str, Any]:
    """The fields of the model's config, without those of a part that it does not have."""
    values = recipe.config(2).to_dict()
    gru, attention = (values.get(name, True) for name in ("use_gru", "use_linear_attention"))
    without = [] if gru else ["use_temporal_convolutions", "use_selective_gate"]
    without += [] if gru and attention else ["use_expert_mixing"]
    return {name: value for name, value in values.items() if name not in without}


def select(
    protocol: Protocol,
    data: Sequence[str] = (),
    rows: Sequence[str] = (),
    presets: Sequence[str] = (),
    ablate: Sequence[str] = (),
    first_look: bool = False,
) -> Study:
    """The part of a protocol that is to run.

    Args:
        protocol: All that there is.
        data: `NAME=FILE`, or `NAME` where the protocol knows the source; in the order of the queue. Without any, the
            data sets whose source the protocol knows.
        rows: Models, presets and references; without any, all of them.
        presets: `NAME=RECIPE`, beside those of the protocol; for one data set at a time.
        ablate: Rows that are taken apart.
        first_look: See `Study`.

    Raises:
        RecipeError: There is no such data set, row or recipe, or a preset has the name of a model.
        DataError: A data set has no source.
    """
    chosen: dict[str, DataProtocol] = {}
    for text in data:
        name, equals, source = text.partition("=")
        part = protocol.data_set(name)
        if equals and source not in NAMED_SOURCES and not Path(source).exists():
            raise DataError(f"--data {name}: there is no file {source!r}")
        chosen[name] = replace(part, interactions={**part.interactions, "source": source}) if equals else part
    if not data:
        chosen = {name: part for name, part in protocol.data.items() if part.recipe.source is not None}
    for name, part in chosen.items():
        if part.recipe.source is None:
            raise DataError(f"{name} needs its interactions: --data {name}=FILE")
    if not chosen:
        raise DataError(f"say on what: --data NAME=FILE, for {', '.join(protocol.data)}")
    return study(protocol, chosen, rows, presets, ablate, first_look)


def study(
    protocol: Protocol,
    data: Mapping[str, DataProtocol],
    rows: Sequence[str] = (),
    presets: Sequence[str] = (),
    ablate: Sequence[str] = (),
    first_look: bool = False,
) -> Study:
    """The comparison of some data sets of a protocol, with or without their sources; arguments as in `select`."""
    recipes = {name: {key: research_recipe(file) for key, file in part.presets.items()} for name, part in data.items()}
    for text in presets:
        key, equals, file = text.partition("=")
        if not equals or not key or len(data) != 1:
            raise RecipeError(f"--preset is NAME=RECIPE, with one data set in --data, but got {text!r} for {len(data)}")
        recipes[next(iter(data))][key] = research_recipe(file)
    named = {key for part in recipes.values() for key in part}
    known = [*protocol.models, *protocol.references, *sorted(named)]
    for key in named & {*protocol.models, *protocol.references}:
        raise RecipeError(f"a preset cannot be called {key!r}, as a model is")
    for row in rows:
        if row not in known:
            raise RecipeError(f"There is no row {row!r} in this comparison; {nearest_names(row, known)}")
    wanted = list(rows) or known
    table: dict[str, dict[str, Recipe | Search]] = {}
    for name, part in data.items():
        fixed = {key: recipes[name][key] for key in wanted if key in recipes[name]}
        # A preset's recipe may be about another file; here it is measured on this one, as all rows are.
        table[name] = {
            key: replace(recipe, data=part.recipe, training=replace(recipe.training, metric=protocol.metric))
            for key, recipe in fixed.items()
        }
        table[name] |= {model: protocol.search(part, model) for model in wanted if model in protocol.models}
    references = tuple(row for row in wanted if row in protocol.references)
    return Study(
        {name: Recipe(name=name, data=part.recipe) for name, part in data.items()},
        table,
        dict.fromkeys(data, references),
        protocol.final_seeds,
        protocol.metric,
        pass_seconds={name: protocol.pass_seconds(part) for name, part in data.items()},
        protocol=protocol,
        ablate=tuple(ablate),
        first_look=first_look,
    )
