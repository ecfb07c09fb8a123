"""What is to be run, in which order: a pure function of the protocol and of validation metrics.

No test metric enters here: `plan` sees one number a trial, its validation metric, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import RecipeError, nearest_names
from ..recipe import EvaluationRecipe, Recipe, change_recipe
from .protocol import TOP_K, DataProtocol, Protocol
from .space import draw_settings, make_recipe, reference_recipe
from .trials import ABLATION, FINAL, PRESET, REFERENCE, TUNE, Trial

__all__ = ["Selection", "Step", "compute_alike", "plan", "ready", "taken_apart"]

Validation = Mapping[str, float | None]
"""Key of a trial that has run to its validation metric, or to None where it failed."""

MEASURED = ("full", "pop100")  # how the rows of a table are evaluated


@dataclass(frozen=True)
class Selection:
    """The part of a protocol that is to run.

    Args:
        data: Data set to its protocol, with a source; the order is that of the queue.
        models: Tuned models, in order.
        presets: Data set to named recipes with fixed settings.
        references: Rows that are not trained.
        ablate: Rows (models or presets) that are taken apart.
        first_look: Whether a model gets, instead of its search, one run with the draw that the best search on the
            data set chose, where there is one.
    """

    data: dict[str, DataProtocol]
    models: tuple[str, ...]
    references: tuple[str, ...] = ()
    presets: dict[str, dict[str, Recipe]] = field(default_factory=dict)
    ablate: tuple[str, ...] = ()
    first_look: bool = False


@dataclass(frozen=True)
class Step:
    """Trials that are decided together.

    Args:
        data, row, stage, epochs: See `Trial`.
        trials: Those that are known already.
        undecided: How many more there will be, when earlier steps are done.
        urgency: Order of the steps, lower first.
    """

    data: str
    row: str
    stage: str
    epochs: int
    trials: tuple[Trial, ...]
    undecided: int = 0
    urgency: tuple[float, ...] = ()


def plan(protocol: Protocol, selection: Selection, validation: Validation) -> list[Step]:
    """All steps of a comparison, most urgent first.

    Successive halving (Jamieson and Talwalkar 2016): all settings of a model run for the first rung's epochs, the best
    one in `protocol.keep_one_in` run anew for the next rung's, and the best of the last rung is the row's setting.
    Then, what decides most comes first: the references; each row's search and its first seed; the other seeds, best
    rows first, since close rows need them most; ablations.

    Args:
        protocol: Budgets and seeds.
        selection: Which part of it.
        validation: What has run.
    """
    steps: list[Step] = []
    for d, (name, data) in enumerate(selection.data.items()):
        for r, reference in enumerate(selection.references):
            trial = Trial(name, reference, REFERENCE, reference_recipe(data, reference))
            steps.append(Step(name, reference, REFERENCE, 0, (trial,), urgency=(0, d, r)))
        # A preset's recipe is about another file, perhaps; here it is measured on this one, as all rows are.
        presets = {
            key: replace(recipe, data=data.recipe, training=replace(recipe.training, metric=protocol.metric))
            for key, recipe in selection.presets.get(name, {}).items()
        }
        measured: dict[str, Recipe | None] = dict(presets)
        for r, (preset, fixed) in enumerate(presets.items()):
            steps += _seeds(protocol, name, preset, PRESET, fixed, validation, (d, r))
        for m, model in enumerate(selection.models, len(measured)):
            search = _search(protocol, name, data, model, validation, (1, d, m))
            if selection.first_look and not _finished(search[-1], validation):
                look = _first_look(protocol, name, data, model, validation)
                if look is not None:
                    steps.append(Step(name, model, FINAL, data.epochs, (look,), urgency=(1, d, m, 1)))
                    measured[model] = None
                    continue
            steps += search
            setting = best_setting(search[-1], validation)
            recipe = None
            if setting is not None:
                recipe = make_recipe(protocol, data, model, setting, epochs=data.epochs, seed=0, protocols=MEASURED)
            failed = setting is None and _finished(search[-1], validation)
            if not failed:
                steps += _seeds(protocol, name, model, FINAL, recipe, validation, (d, m), data.epochs, setting)
            measured[model] = recipe
        for row in selection.ablate:
            if row not in measured:
                raise RecipeError(f"There is no row {row!r} to take apart; {nearest_names(row, measured)}")
            steps += _ablations(protocol, name, row, measured[row], data.epochs, d)
    return sorted(steps, key=lambda step: step.urgency)


def ready(steps: Sequence[Step], validation: Validation) -> list[Trial]:
    """The trials that can start now, most urgent first."""
    return [trial for step in steps for trial in step.trials if trial.key not in validation]


def best_setting(last: Step, validation: Validation) -> dict[str, Any] | None:
    """The setting that a row is measured with; None before the last rung is done, or where all of it failed."""
    if not _finished(last, validation):
        return None
    best = _best(last.trials, validation, 1)
    return best[0].setting if best else None


def _finished(step: Step, validation: Validation) -> bool:
    return not step.undecided and all(trial.key in validation for trial in step.trials)


def _best(trials: Sequence[Trial], validation: Validation, count: int) -> list[Trial]:
    """The best that did not fail; of equals the earlier draw."""
    scored = [(value, trial) for trial in trials if (value := validation.get(trial.key)) is not None]
    return [trial for _, trial in sorted(scored, key=lambda pair: (-pair[0], pair[1].index))[:count]]


def _search(
    protocol: Protocol, name: str, data: DataProtocol, model: str, validation: Validation, urgency: tuple[float, ...]
) -> list[Step]:
    """One step a rung."""
    steps: list[Step] = []
    settings = dict(enumerate(draw_settings(protocol, data, model)))
    count = len(settings)
    for rung, epochs in enumerate(data.rungs):
        if steps:
            count = math.ceil(count / protocol.keep_one_in)
            if not _finished(steps[-1], validation):
                steps.append(Step(name, model, TUNE, epochs, (), count, (*urgency, 0, rung)))
                continue
            best = _best(steps[-1].trials, validation, count)
            settings = {trial.index: trial.setting or {} for trial in best}
        trials = [
            Trial(
                name,
                model,
                TUNE,
                make_recipe(protocol, data, model, setting, epochs=epochs, seed=protocol.tuning_seed),
                rung,
                index,
                setting,
            )
            for index, setting in settings.items()
        ]
        # Settings that differ only in what the model does not have are one trial.
        distinct = {trial.key: trial for trial in reversed(trials)}
        kept = sorted(distinct.values(), key=lambda trial: trial.index)
        steps.append(Step(name, model, TUNE, epochs, tuple(kept), 0, (*urgency, 0, rung)))
    return steps


def _first_look(protocol: Protocol, name: str, data: DataProtocol, model: str, validation: Validation) -> Trial | None:
    """The draw of the best search that has ended, with the first seed; None where none has ended."""
    lasts = [_search(protocol, name, data, other, validation, ())[-1] for other in protocol.models]
    best = _best([trial for last in lasts if _finished(last, validation) for trial in last.trials], validation, 1)
    if not best:
        return None
    setting = draw_settings(protocol, data, model)[best[0].index]
    recipe = make_recipe(protocol, data, model, setting, epochs=data.epochs, seed=0, protocols=MEASURED)
    (trial,) = seeded(name, model, FINAL, recipe, protocol.final_seeds[:1], setting)
    return replace(trial, setting_of=best[0].row)


def _seeds(
    protocol: Protocol,
    data: str,
    row: str,
    stage: str,
    recipe: Recipe | None,
    validation: Validation,
    place: tuple[int, int],
    epochs: int = 0,
    setting: dict[str, Any] | None = None,
) -> list[Step]:
    """The runs that fill a row: the first seed by itself, then the others; `recipe` None where it is not decided."""
    d, r = place
    first, others = protocol.final_seeds[:1], protocol.final_seeds[1:]
    if recipe is None:
        return [
            Step(data, row, stage, epochs, (), len(seeds), urgency)
            for seeds, urgency in ((first, (1, d, r, 1)), (others, (2, d, 0, r)))
            if seeds
        ]
    trials = seeded(data, row, stage, recipe, protocol.final_seeds, setting)
    epochs = trials[0].epochs
    score = validation.get(trials[0].key) or 0.0
    steps = [Step(data, row, stage, epochs, trials[:1], 0, (1, d, r, 1))]
    return [*steps, Step(data, row, stage, epochs, trials[1:], 0, (2, d, -score, r))] if others else steps


def _ablations(protocol: Protocol, data: str, row: str, recipe: Recipe | None, epochs: int, place: int) -> list[Step]:
    count = len(protocol.ablation_seeds)
    steps = []
    for a, (name, overrides) in enumerate(protocol.ablations.items()):
        label = f"{row}: {name}"
        if recipe is None:
            steps.append(Step(data, label, ABLATION, epochs, (), count, (3, place, a)))
            continue
        changed = taken_apart(recipe, overrides)
        if changed is not None:
            trials = seeded(data, label, ABLATION, changed, protocol.ablation_seeds, None)
            steps.append(Step(data, label, ABLATION, trials[0].epochs, trials, 0, (3, place, a)))
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
    fields = recipe.config(2).to_dict()
    gru, attention = (fields.get(name, True) for name in ("use_gru", "use_linear_attention"))
    without = [] if gru else ["use_temporal_convolutions", "use_selective_gate"]
    without += [] if gru and attention else ["use_expert_mixing"]
    return {name: value for name, value in fields.items() if name not in without}


def seeded(
    data: str, row: str, stage: str, recipe: Recipe, seeds: Sequence[int], setting: dict[str, Any] | None
) -> tuple[Trial, ...]:
    """One trial a seed, evaluated as the rows of a table are."""
    evaluation = EvaluationRecipe(top_k=TOP_K, protocols=MEASURED, reference_models=())
    return tuple(
        Trial(data, row, stage, replace(recipe, seed=seed, evaluation=evaluation), index=index, setting=setting)
        for index, seed in enumerate(seeds)
    )
