"""Successive halving, the final runs and their order, without running anything."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from modeling_glintru import GlintRUError
from modeling_glintru.comparison.trials import FINAL, FIXED, REFERENCE, TUNE, Trial, ready
from modeling_glintru.recipe import Recipe, change_recipe
from research.protocol import ABLATION, RECORDS

from .helpers import of, pretend, tiny_job


@pytest.fixture
def job(tmp_path):
    space = {"learning_rate": [rate / 1000 for rate in range(1, 10)], "dropout": [0.1, 0.3]}
    return tiny_job(tmp_path, data={"trials": 9, "rungs": [1, 2, 4], "epochs": 6}, space=space)


def score(trial):
    """Later draws are better; a longer schedule turns that around."""
    return trial.index / 10 if trial.epochs < 4 else 0.9 - trial.index / 100


def test_at_first_only_the_first_rung_is_known(job):
    steps = job.comparison.plan({})
    search = [step for step in steps if step.row == "gru4rec" and step.stage == TUNE]
    assert [(step.epochs, len(step.trials), step.undecided) for step in search] == [(1, 9, 0), (2, 0, 3), (4, 0, 1)]
    final = [step for step in steps if step.row == "gru4rec" and step.stage == FINAL]
    assert [(step.epochs, len(step.trials), step.undecided) for step in final] == [(6, 0, 1), (6, 0, 1)]


def test_the_best_third_goes_on_and_trains_anew(job):
    done = pretend(job.comparison, score)
    steps = job.comparison.plan(done)
    first, second, third = of(steps, "glintru", TUNE)
    assert [trial.index for trial in second] == [6, 7, 8] and [trial.index for trial in third] == [8]
    assert {trial.epochs for trial in second} == {2} and {trial.recipe.seed for trial in (*first, *third)} == {5}
    finals = [trial for trials in of(steps, "glintru", FINAL) for trial in trials]
    assert [trial.recipe.seed for trial in finals] == [1, 2]
    assert all(trial.setting == first[8].setting and trial.epochs == 6 for trial in finals)
    assert finals[0].recipe.evaluation.protocols == ("full", "pop100")
    assert not ready(steps, done)


def test_a_rung_waits_for_all_of_the_one_before(job):
    steps = job.comparison.plan({})
    first = of(steps, "glintru", TUNE)[0]
    done = {trial.key: score(trial) for trial in first[:-1]}
    assert of(job.comparison.plan(done), "glintru", TUNE)[1] == []
    assert of(job.comparison.plan(done | {first[-1].key: 0.0}), "glintru", TUNE)[1] != []


def test_failed_trials_do_not_go_on(job):
    done = pretend(job.comparison, lambda trial: None if trial.index in (7, 8) else score(trial))
    second = of(job.comparison.plan(done), "glintru", TUNE)[1]
    assert [trial.index for trial in second] == [4, 5, 6]


def test_a_model_whose_trials_all_fail_has_no_final_run(job):
    fails = lambda trial: None if trial.row == "gru4rec" else score(trial)  # noqa: E731
    done = pretend(job.comparison, fails)
    steps = job.comparison.plan(done)
    assert of(steps, "gru4rec", FINAL) == [] and not ready(steps, done)
    assert sum(step.undecided for step in steps) == 0
    assert of(steps, "glintru", FINAL)


def test_what_decides_most_comes_first(job):
    value = lambda trial: 0.5 if trial.row == "gru4rec" else 0.2  # noqa: E731
    done = pretend(job.comparison, value)
    order = [(step.stage, step.row) for step in job.comparison.plan(done)]
    assert order[:3] == [(REFERENCE, "popularity"), (REFERENCE, "item_knn"), (FIXED, "paper")]
    ours, theirs = order.index((FINAL, "glintru")), order.index((FINAL, "gru4rec"))
    assert order.index((TUNE, "glintru")) < ours < order.index((TUNE, "gru4rec")) < theirs
    # The other seeds: best row first.
    assert order[theirs + 1 :] == [
        (FINAL, "gru4rec"),
        (FIXED, "paper"),
        (FINAL, "glintru"),
        (ABLATION, "paper: no GRU"),
    ]


def test_a_first_look_borrows_the_draw_of_the_best_search(job):
    quick = replace(job.comparison, first_look=True)
    assert quick.plan({}) == job.comparison.plan({})  # nothing to borrow yet
    rows = {row: entry for row, entry in job.comparison.rows["toy"].items() if row != "gru4rec"}
    ours = replace(job.comparison, rows={"toy": rows})
    done = pretend(ours, score)
    steps = quick.plan(done)
    assert of(steps, "gru4rec", TUNE) == [] and len(of(steps, "glintru", TUNE)) == 3
    ((look,),) = of(steps, "gru4rec", FINAL)
    draw = of(job.comparison.plan({}), "gru4rec", TUNE)[0][8]
    assert (look.setting, look.setting_of, look.recipe.seed, look.epochs) == (draw.setting, "glintru", 1, 6)
    assert ready(steps, done) == [look]
    done |= {look.key: 0.1}
    assert not ready(quick.plan(done), done)
    # The model's own search goes before it, and where it chooses the same draw the run is there already.
    done = pretend(job.comparison, score)
    steps = quick.plan(done)
    assert steps == job.comparison.plan(done)
    assert of(steps, "gru4rec", FINAL)[0][0].key == look.key


def test_settings_that_are_the_same_to_a_model_run_once(tmp_path):
    space = {"num_attention_heads": [1, 2], "learning_rate": [1e-3]}
    job = tiny_job(tmp_path, data={"trials": 6}, space=space, models={"glintru": {}, "gru4rec": {}})
    steps = job.comparison.plan({})
    assert len(of(steps, "gru4rec", TUNE)[0]) == 1  # it has no heads
    assert len(of(steps, "glintru", TUNE)[0]) == 2


def test_an_ablation_changes_one_thing(job):
    steps = job.comparison.plan({})
    ((ablation,),) = of(steps, "paper: no GRU", ABLATION)
    ((preset,), _) = of(steps, "paper", FIXED)
    assert ablation.recipe.model == {**preset.recipe.model, "use_gru": False}
    assert replace(ablation.recipe, model={}) == replace(preset.recipe, model={})
    assert not of(steps, "paper: as it is", ABLATION)  # would be the row itself


def test_an_ablation_that_does_not_go_with_the_row_is_left_out(tmp_path):
    """A loss that the row's other settings exclude, a part that another model has not, a part of one that is off."""
    ablations = {"BPR loss": ["loss=bpr"], "no GRU": ["use_gru=false"], "no gate": ["use_selective_gate=false"]}
    job = tiny_job(tmp_path, ablations=ablations)
    paper = job.comparison.rows["toy"]["paper"]
    with_r_drop, no_gru = (change_recipe(paper, [override]) for override in ("r_drop_alpha=1", "use_gru=false"))
    rival = replace(paper, model={"name": "gru4rec", "hidden_size": 8})
    for recipe, left in (
        (paper, ["BPR loss", "no GRU", "no gate"]),
        (with_r_drop, ["no GRU", "no gate"]),
        (no_gru, ["BPR loss"]),
        (rival, ["BPR loss"]),
    ):
        study = replace(job.comparison, rows={"toy": {"paper": recipe}})
        rows = [step.row for step in study.plan({}) if step.stage == ABLATION]
        assert rows == [f"paper: {name}" for name in left]


def test_a_tuned_row_is_taken_apart_when_its_setting_is_known(job):
    study = replace(job.comparison, ablate=("glintru",))
    (step,) = [s for s in study.plan({}) if s.row == "glintru: no GRU"]
    assert (step.trials, step.undecided) == ((), 1)
    done = pretend(study, score)
    ((ablation,),) = of(study.plan(done), "glintru: no GRU", ABLATION)
    assert ablation.recipe.model["use_gru"] is False and ablation.epochs == 6
    with pytest.raises(GlintRUError, match="did you mean 'glintru'"):
        replace(study, ablate=("glintr",)).plan({})


def test_keys(job, tmp_path):
    """The same for the same computation in any session, wherever the file lies; another one for anything else."""
    trial = of(job.comparison.plan({}), "glintru", TUNE)[0][0]
    moved = replace(trial, recipe=replace(trial.recipe, data=replace(trial.recipe.data, source="elsewhere.csv")))
    assert moved.key == trial.key
    others = [
        replace(trial, recipe=replace(trial.recipe, seed=9)),
        replace(trial, recipe=replace(trial.recipe, training=replace(trial.recipe.training, learning_rate=0.5))),
        replace(trial, recipe=replace(trial.recipe, data=replace(trial.recipe.data, min_user_interactions=5))),
        replace(trial, data="other"),
        replace(trial, row="other"),
        replace(trial, stage=FINAL),
    ]
    assert len({trial.key, *(other.key for other in others)}) == 7
    assert others[0].group == trial.group and others[1].group != trial.group


def test_a_new_setting_leaves_the_keys_of_what_has_run():
    """Else all of it would run again."""
    lines = [
        json.loads(text) for file in RECORDS.glob("*.jsonl") for text in file.read_text(encoding="utf-8").splitlines()
    ]
    assert lines
    for line in lines:
        recipe = Recipe.from_dict(line["recipe"])
        assert Trial(line["data"], line["row"], line["stage"], recipe).key == line["key"], line["key"]
