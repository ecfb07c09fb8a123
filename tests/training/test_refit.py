"""The training on everything that follows the measured one, and the model that a time limit leaves."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_glintru import GlintRUProcessor
from modeling_glintru import jobs as runs
from modeling_glintru.data import load_source, synthetic_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.data.prepared import with_everything
from modeling_glintru.evaluation import RankingMetrics, target_ranks
from modeling_glintru.recipe import Recipe, load_model_recipe, load_recipe
from modeling_glintru.training import checkpoint, refit, train
from modeling_glintru.training.stopping import Interruptions, RunStopped

# About five steps an epoch, all random numbers in use.
OPTIONS = [
    *("num_train_epochs=4", "train_batch_size=40", "learning_rate=0.03", "early_stopping_patience=2"),
    *("random_window_shift=true", "max_length=10", "logging_steps=1", "precision=fp32", "warmup_steps=3"),
    *("loss=sampled_softmax", "num_negatives=20", "negative_sampling=popularity"),
    *("evaluation.reference_models=[]", "num_bootstrap=10"),
]
EPOCHS = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("refit") / "log.csv"
    synthetic_interactions(num_users=80, num_items=60, seed=3).frame.write_csv(file)
    return file


def recipe(source, *options: str) -> Recipe:
    return load_recipe("demo", [*OPTIONS, f"data.source={source}", *options])


class Dictated(RankingMetrics):
    """Validation metrics epoch by epoch, so that the best one is known; the patience ends the run two later."""

    best = 2

    def __init__(self, ks) -> None:
        super().__init__(ks)
        self.values = iter([0.1] * (self.best - 1) + [0.3, 0.2, 0.1, 0.1])

    def __call__(self, prediction, compute_result=True):
        metrics = super().__call__(prediction, compute_result)
        return metrics | {"ndcg@10": next(self.values)} if compute_result else metrics


def go(chosen: Recipe, folder: Path, **options):
    quiet = {"progress": False, "say": lambda text: None}
    return runs.train_and_evaluate(chosen, folder, **quiet | options)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """A run with a refit that nobody stopped: folder, result, data, what was said."""
    said: list[str] = []
    folder = tmp_path_factory.mktemp("whole") / "out"
    result, data, _ = go(recipe(source), folder, refit=True, say=said.append)
    return folder, result, data, said


@pytest.fixture
def dictated(monkeypatch):
    monkeypatch.setattr(runs, "RankingMetrics", Dictated)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(folder: Path, other: Path) -> None:
    ours, theirs = weights(folder), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    tests = [json.loads((name / "metrics.json").read_text())["test"] for name in (folder, other)]
    assert tests[0] == tests[1]
    assert {file.name for file in folder.iterdir()} == {file.name for file in other.iterdir()}


def test_the_figures_are_those_of_the_model_before(source, whole, tmp_path):
    folder, result, _, said = whole
    go(recipe(source), tmp_path / "out")
    measured, refitted = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "out", folder))
    for part in ("test", "validation", "num_test_users"):
        assert measured[part] == refitted[part]
    assert "refit" not in measured
    assert refitted["refit"] == result.refit and result.refit["num_interactions"] == refitted["data"]["interactions"]
    assert result.refit["epochs"] == result.best_epoch and result.refit["seconds"] > 0
    assert any("on everything" in line for line in said)
    assert not torch.equal(*(weights(f)["model.embed_items.weight"] for f in (tmp_path / "out", folder)))
    card = (folder / "README.md").read_text()
    assert "These figures were measured on a model trained without the held-out items; the weights here were" in card
    assert "on everything" not in (tmp_path / "out" / "README.md").read_text()


def test_the_recipe_says_so_and_runs_again(source, whole, tmp_path):
    folder = whole[0]
    kept = load_model_recipe(folder)
    assert kept.training.refit
    again = load_recipe(folder / "recipe.yaml", [f"data.source={source}"])
    go(again, tmp_path / "out")
    assert_same(tmp_path / "out", folder)


def test_the_counts_are_those_of_everything(whole):
    folder, _, data, _ = whole
    everything = with_everything(data).item_counts[1:]
    found = GlintRUProcessor.from_pretrained(folder).item_counts
    assert found.tolist() == everything.tolist() and found.sum() == data.summary["interactions"]


@pytest.mark.parametrize("best", [1, 2])
def test_it_is_one_training_on_the_complete_histories(source, tmp_path, monkeypatch, best):
    """With the schedule of all epochs, for as many as the measured run kept: nothing else differs from a training."""
    monkeypatch.setattr(runs, "RankingMetrics", type("Chosen", (Dictated,), {"best": best}))
    seen = {}

    def noted(*args, **options):
        result = train(*args, **options)
        seen["refit" if options.get("epochs") else "measured"] = result
        return result

    monkeypatch.setattr(runs, "train_weights", noted)
    monkeypatch.setattr(refit, "train", noted)
    chosen = recipe(source)
    result = go(chosen, tmp_path / "out", refit=True)[0]
    assert result.best_epoch == result.refit["epochs"] == best
    rates = {entry["step"]: entry["learning_rate"] for entry in seen["refit"].log_history if "loss" in entry}
    steps = result.refit["steps"]
    assert sorted(rates) == list(range(1, steps + 1)) and steps % best == 0
    total = steps // best * EPOCHS
    assert rates[steps] == pytest.approx(0.03 * (1 + math.cos(math.pi * (steps - 1 - 3) / (total - 3))) / 2)
    assert "eval_ndcg@10" not in {name for entry in seen["refit"].log_history for name in entry}
    if best > 1:
        return  # each validation draws a random number, and the refit has none
    by_hand = train(
        chosen,
        with_everything(prepare(load_source(source), max_length=10)),
        tmp_path / "by_hand",
        compute_metrics=lambda prediction, compute_result: {"ndcg@10": 0.5} if compute_result else {},
        preprocess_logits_for_metrics=target_ranks,
        progress=False,
        say=lambda text: None,
    )
    assert by_hand.best_epoch == best
    found, expected = result.model.state_dict(), by_hand.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("split", ["leave_one_out", "temporal", "user"])
def test_no_split_withholds_anything(source, split, tmp_path):
    """The case no_holdout: the model that goes live has learned from every interaction, however it was measured."""
    folder = tmp_path / "prepared"
    runs.prepare_data(recipe(source, f"split={split}"), folder, say=lambda text: None)
    for number, place in enumerate((source, folder)):
        chosen = recipe(place, f"split={split}", "num_train_epochs=1", "refit=true")
        result, data, _ = go(chosen, tmp_path / str(number))
        interactions = load_source(source)
        assert result.refit["num_interactions"] == len(interactions) > data.summary["train_interactions"]
        counts = dict(interactions.frame["item_id"].value_counts().iter_rows())
        processor = GlintRUProcessor.from_pretrained(tmp_path / str(number))
        assert dict(zip(processor.item_ids, processor.item_counts.tolist(), strict=True)) == counts
    assert_same(tmp_path / "0", tmp_path / "1")


def test_times_between_items_are_learned_too(source, tmp_path):
    options = ("use_time_gaps=true", "num_train_epochs=1", "refit=true")
    result, _, _ = go(recipe(source, *options), tmp_path / "out")
    assert result.refit["epochs"] == 1


class Killed(BaseException):
    """Nothing of ours catches it."""


def test_killed_anywhere_and_resumed(source, whole, tmp_path, monkeypatch):
    """Once in the measured training, then twice in the refit, while checkpoints are written."""
    draw, flush, left = random.Random(0), checkpoint.flush, 0

    def counted(path):
        nonlocal left
        left -= "checkpoints/refit" in str(path) if in_refit else 1
        if left == 0:
            raise Killed
        flush(path)

    monkeypatch.setattr(checkpoint, "flush", counted)
    for number, in_refit in enumerate((False, True, True)):  # noqa: B007 (read by `counted`)
        left = draw.randint(1, 40)
        with pytest.raises(Killed):
            go(recipe(source), tmp_path / "out", refit=True, resume=number > 0, save_minutes=0)
    assert (tmp_path / "out" / "checkpoints" / "refit").is_dir()
    in_refit, left, said = False, -1, []
    go(recipe(source), tmp_path / "out", refit=True, resume=True, say=said.append)
    assert_same(tmp_path / "out", whole[0])


class UpAfter(Interruptions):
    """The time is up after one of the steps, of the training or of the refit."""

    step, in_refit = 0, False

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and (Path(args.output_dir).parent.name == "refit") == self.in_refit:
            self.deadline = 0.0
        super().on_step_end(args, state, control, **kwargs)


@pytest.fixture
def up_after(monkeypatch):
    def at(step: int, in_refit: bool = False) -> None:
        monkeypatch.setattr(runs, "Interruptions", type("Up", (UpAfter,), {"step": step, "in_refit": in_refit}))

    return at


def steps_an_epoch(result) -> int:
    return round(result.steps / max(entry["epoch"] for entry in result.log_history))


def test_a_time_limit_in_the_training_leaves_the_best_epoch(source, whole, tmp_path, monkeypatch, dictated, up_after):
    """The third epoch was not validated yet: the second is kept, no refit is made, and --resume does all the rest."""
    folder, each = tmp_path / "out", steps_an_epoch(whole[1])
    up_after(2 * each + 2)
    said: list[str] = []
    result, _, tests = go(recipe(source), folder, refit=True, say=said.append)
    assert (result.best_epoch, result.stopped.of, result.refit) == (2, EPOCHS, None)
    assert result.stopped.epochs == pytest.approx(2 + 2 / each, abs=1e-3)
    assert [line for line in said if line.startswith("Refit")] == [
        "Refit     none: the time was up before the training was done"
    ]
    assert any(line.startswith("Stopped   by --max_minutes after 2.") and "epoch 2 is kept" in line for line in said)
    best = load_file(folder / "checkpoints" / f"checkpoint-{2 * each}" / "model.safetensors")
    saved = weights(folder)
    assert all(torch.equal(saved[name], best[name]) for name in saved)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stopped"] == {"by": "max_minutes", **vars(result.stopped)} and "refit" not in metrics
    assert metrics[metrics["main"]] == next(iter(tests.values())).table()
    assert "Stopped early by --max_minutes after 2." in (folder / "README.md").read_text()
    assert not load_model_recipe(folder).training.refit
    monkeypatch.undo()
    go(recipe(source), folder, refit=True, resume=True)
    assert_same(folder, whole[0])
    assert not (folder / "checkpoints").exists()


def test_before_the_first_epoch_the_weights_are_measured_as_they_are(source, whole, tmp_path, monkeypatch, up_after):
    folder = tmp_path / "out"
    up_after(1)
    result, _, _ = go(recipe(source), folder, refit=True)
    assert result.stopped.epochs < 1 and len([e for e in result.log_history if "eval_ndcg@10" in e]) == 1
    saved, last = weights(folder), load_file(folder / "checkpoints" / "checkpoint-1" / "model.safetensors")
    assert all(torch.equal(saved[name], last[name]) for name in saved)
    monkeypatch.undo()
    go(recipe(source), folder, refit=True, resume=True)  # that validation has changed nothing
    assert_same(folder, whole[0])


def test_a_time_limit_in_the_refit_leaves_the_measured_model(source, whole, tmp_path, monkeypatch, up_after):
    folder = tmp_path / "out"
    up_after(3, in_refit=True)
    said: list[str] = []
    result, _, _ = go(recipe(source), folder, refit=True, say=said.append)
    assert (result.stopped.during, result.stopped.of, result.refit) == ("refit", result.best_epoch, None)
    assert any(line.startswith("Stopped   by --max_minutes after ") and "of the refit" in line for line in said)
    assert "weights are those before it" in (folder / "README.md").read_text()
    assert not load_model_recipe(folder).training.refit
    monkeypatch.undo()
    go(recipe(source), tmp_path / "measured")
    assert all(torch.equal(weights(folder)[k], v) for k, v in weights(tmp_path / "measured").items())
    said.clear()
    go(recipe(source), folder, refit=True, resume=True, say=said.append)
    assert "The refit goes on from checkpoint-3" in said
    assert_same(folder, whole[0])


def test_a_signal_leaves_a_checkpoint_and_no_model(source, tmp_path, monkeypatch):
    class Signal(Interruptions):
        def on_step_end(self, args, state, control, **kwargs):
            if Path(args.output_dir).parent.name == "refit":
                self.signal = 15
            super().on_step_end(args, state, control, **kwargs)

    monkeypatch.setattr(runs, "Interruptions", Signal)
    with pytest.raises(RunStopped) as stop:
        go(recipe(source), tmp_path / "out", refit=True)
    assert stop.value.exit_code == 143 and [entry.name for entry in (tmp_path / "out").iterdir()] == ["checkpoints"]


def test_a_refit_of_other_epochs_starts_again(tmp_path):
    from modeling_glintru.training.folder import refit_folder

    def left(epochs: int, resume: bool = True) -> bool:
        refit_folder(tmp_path, epochs, resume)
        folder = tmp_path / "checkpoints" / "refit" / "checkpoint-5"
        there = folder.exists()
        folder.mkdir(exist_ok=True)
        return there

    assert [left(3), left(3), left(4), left(4), left(4, resume=False)] == [False, True, False, True, False]


def test_the_measuring_fits_before_the_limit(monkeypatch):
    """Two processes validated in 3 s together; 2.5 passes of one process follow: 15 s."""
    from types import SimpleNamespace

    from modeling_glintru.training import stopping

    limit = Interruptions(deadline=100.0, save_seconds=1e9, passes_after=2.5)
    arguments, control = SimpleNamespace(world_size=2), SimpleNamespace()
    limit.on_evaluate(arguments, None, control, metrics={"eval_runtime": 3.0})
    limit.on_evaluate(arguments, None, control, metrics={"eval_runtime": 2.0})
    goes_on = Interruptions(deadline=100.0, save_seconds=1e9, passes_after=2.5)
    goes_on.on_train_begin(arguments, SimpleNamespace(log_history=[{"loss": 1.0}, {"eval_runtime": 3.0}]), control)
    for each in (limit, goes_on):
        for now, wish in ((84.9, stopping.NOTHING), (85.0, stopping.TIME)):
            monkeypatch.setattr(stopping.time, "monotonic", lambda now=now: now)
            each.saved_at = now
            assert each._wish(SimpleNamespace(world_size=1)) == wish


def test_what_the_measuring_costs(source):
    """Passes over the validation split: the model on both splits, each reference model on the test.

    Items recur in this data, so that the user's own items, in two orders, are reference models too.
    """
    data = prepare(load_source(source))
    both = recipe(source, "evaluation.reference_models=[popularity, item_knn]")
    assert len(data.dataset["test"]) == len(data.dataset["validation"])
    assert (runs._passes_after(recipe(source), data), runs._passes_after(both, data)) == (2, 6)
    np.testing.assert_allclose(runs._passes_after(recipe(source, "fine_tuning.from_model=x"), data), 4)
