"""A training that diverges stops with a sentence, keeps what was good, and nothing recommends from what is left."""

from __future__ import annotations

import re

import pytest
import torch

from modeling_glintru import Recommender
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import ModelFolderError, TrainingDivergedError
from modeling_glintru.evaluation import RankingMetrics, target_ranks
from modeling_glintru.models.loading import load_model_folder, weights_that_are_not_finite
from modeling_glintru.recipe import load_recipe
from modeling_glintru.training import train
from modeling_glintru.training.checkpoint import RunTrainer
from modeling_glintru.training.folder import CHECKPOINTS, run_folder


@pytest.fixture(scope="module")
def data():
    return prepare(synthetic_interactions(), max_length=10)


def harmed(monkeypatch, step: int, harm) -> None:
    """Lets the training do `harm` to the model at the end of a step."""
    before = RunTrainer.training_step

    def training_step(self, model, *args, **kwargs):
        loss = before(self, model, *args, **kwargs)
        if self.state.global_step + 1 == step:
            loss = harm(self, model, loss)
        return loss

    monkeypatch.setattr(RunTrainer, "training_step", training_step)


def fit(recipe, data, folder, **options):
    metrics = {"compute_metrics": RankingMetrics((10,)), "preprocess_logits_for_metrics": target_ranks}
    return train(recipe, data, folder, progress=False, **metrics, **options)


def poison(trainer, model, loss):
    next(model.parameters()).grad.fill_(float("nan"))
    return loss


RECIPE = ("num_train_epochs=3", "early_stopping_patience=9", "max_length=10", "train_batch_size=128")


def test_a_loss_that_is_not_finite(data, tmp_path):
    recipe = load_recipe("demo", [*RECIPE, "learning_rate=1e30", "max_grad_norm=1e30", "warmup_steps=0"])
    message = r"the loss of step \d+ is (nan|inf|-inf), at a learning rate of"
    with pytest.raises(TrainingDivergedError, match=message) as caught:
        fit(recipe, data, tmp_path)
    assert "Try a lower learning_rate" in str(caught.value)


def test_weights_that_are_not_finite(data, tmp_path, monkeypatch):
    """The last step of the second epoch harms them; the checkpoint of the first epoch stays, and no other comes."""
    recipe = load_recipe("demo", [*RECIPE, "max_grad_norm=1e30"])
    whole = fit(recipe, data, tmp_path / "whole")
    steps = whole.steps // 3
    harmed(monkeypatch, 2 * steps, poison)
    message = rf"after step {2 * steps} .* holds numbers that are not finite"
    with pytest.raises(TrainingDivergedError, match=message), run_folder(tmp_path / "run", {}, resume=False):
        fit(recipe, data, tmp_path / "run")
    left = [entry.name for entry in (tmp_path / "run" / CHECKPOINTS).glob("checkpoint-*")]
    assert [name for name in left if not name.endswith(".partial")] == [f"checkpoint-{steps}"]
    monkeypatch.undo()
    again = fit(recipe, data, tmp_path / "run", resume=True)
    theirs = whole.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.model.state_dict().items())


def test_the_very_last_step(data, tmp_path, monkeypatch):
    """Without a validation after it, as in the training on everything."""
    recipe = load_recipe("demo", [*RECIPE, "max_grad_norm=1e30"])
    steps = fit(recipe, data, tmp_path / "whole", epochs=1).steps
    harmed(monkeypatch, steps, poison)
    with pytest.raises(TrainingDivergedError, match="not finite"):
        fit(recipe, data, tmp_path / "run", epochs=1)


def test_the_command(glintru, tmp_path):
    settings = [f"--set={text}" for text in ("learning_rate=1e30", "max_grad_norm=1e30", "warmup_steps=0")]
    result = glintru("train", "--recipe", "demo", "--output_dir", tmp_path / "model", "--quiet", *settings)
    assert result.exit_code == 2 and re.search(r"glintru: the training diverged: .*Try a lower", result.output)
    assert not (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_nothing_recommends_from_such_weights(folder, number):
    model, _ = load_model_folder(folder)
    assert weights_that_are_not_finite(model) == []
    with torch.no_grad():
        model.model.layers[0].norm.weight[2] = number
    model.save_pretrained(folder)
    for load in (load_model_folder, Recommender.from_pretrained):
        with pytest.raises(ModelFolderError, match=r"not finite numbers \(model.layers.0.norm.weight\)"):
            load(folder)
