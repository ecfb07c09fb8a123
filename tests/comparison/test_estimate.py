"""How long trials take, and how long one user takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

from modeling_glintru.comparison.estimate import START, UNKNOWN, Estimate
from modeling_glintru.comparison.run_trial import one_user_latency
from modeling_glintru.recipe import change_recipe
from research.protocol import select

from .helpers import of, tiny_data, tiny_job, tiny_protocol

DECLARED = {"seconds_per_epoch": {"glintru": 40, "gru4rec": 20}, "rungs": [2], "epochs": 4}


@pytest.fixture
def job(tmp_path):
    return tiny_job(tmp_path, data=DECLARED)


def line(seconds, size, status="done", model="glintru"):
    recipe = {"model": {"name": model, "hidden_size": size}}
    return {
        **{"status": status, "data": "toy", "model": model, "recipe": recipe},
        **{"cpu_seconds": seconds, "epochs_run": 2},
    }


def test_what_ran_goes_before_what_is_declared(job):
    steps = job.comparison.plan({})
    trial = of(steps, "glintru", "tune")[0][0]  # 2 epochs, of width 8
    data = job.comparison
    assert Estimate(data, []).trial(trial) == START + 2 * 40 * 8 / 64
    wide = [line(60, 128), line(80, 128), line(70, 128)]
    assert Estimate(data, wide).trial(trial) == START + 2 * 35
    assert Estimate(data, [*wide, line(6, 8), line(1000, 8, "failed")]).trial(trial) == START + 2 * 3
    assert Estimate(data, []).seconds_per_pass("toy", "sasrec") == UNKNOWN
    assert Estimate(data, []).seconds_per_pass("toy", "gru4rec", 32) == 10
    on_gpu = line(900, 128) | {"device": "cuda"}
    assert Estimate(data, [*wide, on_gpu]).seconds_per_pass("toy", "gru4rec", 32) == 10 * 35 / 80
    assert Estimate(data, wide).seconds_per_pass("toy", "sasrec") == UNKNOWN


def test_r_drop_and_a_share_of_the_prefixes_scale_an_epoch(job, tmp_path):
    trial = of(job.comparison.plan({}), "glintru", "tune")[0][0]
    twice = replace(trial, recipe=change_recipe(trial.recipe, ["r_drop_alpha=1"]))
    part = replace(trial, recipe=change_recipe(trial.recipe, ["prefix_share=0.25"]))
    data = job.comparison
    for estimate in (Estimate(data, []), Estimate(data, [line(60, 8)])):
        epochs = estimate.trial(trial) - START
        assert estimate.trial(twice) == START + 2 * epochs and estimate.trial(part) == START + epochs / 4
    ran = line(60, 8) | {"recipe": {"model": {"hidden_size": 8, "r_drop_alpha": 1}, "training": {"prefix_share": 0.5}}}
    assert Estimate(data, [ran]).trial(twice) == START + 2 * 60
    part_of_an_epoch = tiny_protocol(tmp_path, data=DECLARED | {"models": {"glintru": {"prefix_share": 0.5}}})
    declared = select(part_of_an_epoch, [f"toy={tiny_data(tmp_path)}"])
    assert Estimate(declared, []).trial(part) == START + 2 * 40 * 8 / 64 / 2


def test_a_step_is_what_is_left_of_it(job):
    steps = job.comparison.plan({})
    search, final = (next(s for s in steps if (s.row, s.stage) == ("glintru", stage)) for stage in ("tune", "final"))
    estimate = Estimate(job.comparison, [])
    done = {search.trials[0].key: 0.1}
    left = [estimate.trial(trial) for trial in search.trials[1:]]
    assert len(search.trials) > 1 and estimate.step(search, done) == pytest.approx(sum(left))
    assert estimate.step(final, {}) == START + 4 * 40  # not decided yet: one run, of some width


def test_one_user_at_a_time_on_one_thread():
    seen = []

    def scorer(histories):
        seen.append((len(histories), torch.get_num_threads()))
        return torch.zeros(len(histories), 5)

    split = Dataset.from_dict({"item_ids": [[1, 2], [3], [2, 1]], "target": [1, 2, 3]})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert 0 <= one_user_latency(scorer, split) < np.inf
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen[1:]) == {(1, 1)} and len(seen) == 1 + 3 + 3
