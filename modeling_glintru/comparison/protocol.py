"""What a comparison declares before it runs: data, models, one search space, budgets and seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import chain
from typing import Any

from ..errors import RecipeError, nearest_names
from ..models.auto import MODELS
from ..models.losses import LossConfig
from ..recipe import (
    DEFAULT_MODEL,
    REFERENCE_MODELS,
    DataRecipe,
    Recipe,
    TrainingRecipe,
    change_recipe,
    configuration_folder,
    find_yaml,
    from_mapping,
    model_fields,
    read_yaml,
)

__all__ = ["DROPOUT", "METRICS", "TOP_K", "DataProtocol", "Protocol", "Settings", "flat", "load_protocol"]

TOP_K = (10, 20)
METRICS = tuple(f"{metric}@{k}" for metric in ("ndcg", "hr", "mrr") for k in TOP_K)
DROPOUT = "dropout"  # one value for every dropout of a model
SETTABLE = {DROPOUT} | {item.name for item in fields(TrainingRecipe)} - {"num_train_epochs", "metric"}


def flat(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting with the keys of its mappings instead of these."""
    plain: dict[str, Any] = {}
    for key, value in setting.items():
        plain |= value if isinstance(value, Mapping) else {key: value}
    return plain


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

    def with_source(self, source: str) -> DataProtocol:
        """The same, with the interactions that the command line gives."""
        return replace(self, interactions={**self.interactions, "source": source})


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


def load_protocol(name_or_path: str | os.PathLike[str] = "default") -> Protocol:
    """Reads a protocol.

    Args:
        name_or_path: A file of `configuration/compare/` without its ending, or the path of a YAML file.

    Raises:
        RecipeError: There is no such protocol, or something in it is not understood.
    """
    path = find_yaml(name_or_path, configuration_folder() / "compare", "protocol")
    return from_mapping(Protocol, "the protocol", read_yaml(path))
