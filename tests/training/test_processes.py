"""Several processes do together what one does: the same batches, losses and metrics."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, machine
from modeling_glintru.cli import app
from modeling_glintru.data import (
    LengthBucketSampler,
    SequenceCollator,
    TrainingWindows,
    load_source,
    synthetic_interactions,
)
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import RecipeError
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.losses import NextItemLoss
from modeling_glintru.training.trainer import ProcessShare, ShareCollator, device_batch_size

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data():
    return prepare(load_source("demo"))


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("rows", [60, 61, 66])
def test_shares_make_up_the_global_batches(processes, rows):
    lengths = np.random.default_rng(0).integers(1, 50, rows)
    order = list(LengthBucketSampler(lengths, 12))
    shares = [list(ProcessShare(LengthBucketSampler(lengths, 12), rank, processes)) for rank in range(processes)]
    assert all(len(share) == math.ceil(rows / 12) for share in shares)
    for number, parts in enumerate(zip(*shares, strict=True)):
        together = [row for part in parts for row in part]
        assert sorted(together) == sorted(order[12 * number : 12 * (number + 1)])
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        if all(map(len, parts)):  # each as long as the others, so that nobody waits
            longest = [lengths[part].max() for part in parts]
            assert max(longest) - min(longest) <= np.ptp(lengths[together])


def test_shares_move_with_the_epoch(data):
    """Accelerate knows of the epoch, and tells the batches alone."""
    windows = TrainingWindows(data.dataset["train"], 8, random_shift=True)
    shares = ProcessShare(LengthBucketSampler(windows, 8), 0, 2)
    starts, batches = windows._starts.copy(), list(shares)
    shares.set_epoch(1)
    assert not np.array_equal(windows._starts, starts) and list(shares) != batches
    shares.set_epoch(0)
    assert np.array_equal(windows._starts, starts) and list(shares) == batches


ABLATIONS = [field.name for field in dataclasses.fields(GlintRUConfig) if field.name.startswith("use_")]


@pytest.mark.parametrize(
    "options", [{"loss": loss} for loss in ("cross_entropy", "bpr", "sampled_softmax", "gbce")]
    + [{name: False} for name in ABLATIONS] + [{"num_hidden_layers": 2}]
)  # fmt: skip
def test_an_empty_share_takes_part(options):
    """It adds nothing to the loss, yet every weight gets a gradient, as the exchange of gradients needs."""
    batch = ShareCollator(SequenceCollator(8))([])
    loss = NextItemLoss(options.get("loss", "cross_entropy"), num_negatives=4)
    parts = {name: value for name, value in options.items() if name != "loss"}
    model = GlintRUForSequentialRecommendation(
        GlintRUConfig(vocab_size=20, hidden_size=16, num_attention_heads=2, **parts)
    )
    model.training_loss = loss
    loss = model.train()(**batch, num_items_in_batch=torch.tensor(7)).loss
    assert loss.item() == 0
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and not weight.grad.any(), name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_uses_all_its_weights(name):
    """Two processes exchange gradients without looking for those that are missing."""
    kind = MODELS[name]
    model = kind(kind.config_class(vocab_size=20, hidden_size=16)).train()
    model(**ShareCollator(SequenceCollator(8))([]), num_items_in_batch=torch.tensor(7)).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []


def test_the_batch_of_a_recipe_is_that_of_all_processes():
    assert device_batch_size(32, 1) == 32 and device_batch_size(32, 2) == 16
    with pytest.raises(RecipeError, match="32 windows cannot be shared out evenly to 3"):
        device_batch_size(32, 3)


def launch(processes: int, *command: str | Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    launcher = launcher if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def log(folder: Path) -> list[dict]:
    timed = ("runtime", "per_second", "total_flos", "eval_loss")  # eval_loss is a mean of batch means
    entries = json.loads((folder / "training_log.json").read_text())
    return [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in entries]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Stopped and resumed on the way, and refitted. The last batch of an epoch is one window: one share is empty."""
    options = ["num_train_epochs=2", "precision=fp32", "max_length=14", "random_window_shift=true", "logging_steps=1"]
    options += [f"{part}_dropout=0" for part in ("embedding", "attention", "hidden")]
    options += ["train_batch_size=96", "evaluation.reference_models=[]", "eval_batch_size=96"]
    changes = [word for option in options for word in ("--set", option)]
    words = ("train", "--recipe", "demo", *changes, "--quiet", "--refit", "--output_dir")
    assert CliRunner().invoke(app, [*words, str(tmp_path / "one")]).exit_code == 0
    command = ("-m", "modeling_glintru", *words)
    stopped = launch(2, *command, tmp_path / "two", "--max_minutes", "1e-9")
    assert stopped.stdout.count("Stopped   by --max_minutes after") == stopped.stdout.count("Refit     none") == 1
    assert (tmp_path / "two" / "model.safetensors").is_file()
    done = launch(2, *command, tmp_path / "two", "--resume")
    assert done.stdout.count("goes on from checkpoint-1\n") == done.stdout.count("Test, 800 users") / 2 == 1
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert len(one) == len(two) > 34
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)
    assert {file.name for file in (tmp_path / "two").iterdir()} == {file.name for file in (tmp_path / "one").iterdir()}
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    values = [found["test"]["ndcg@10"]["value"] for found in metrics]
    assert values[1] == pytest.approx(values[0], abs=2e-3)
    refits = [{k: v for k, v in found["refit"].items() if k != "seconds"} for found in metrics]
    assert refits[0] == refits[1] and done.stdout.count("Refit     ") == 1
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(first[name], second[name], atol=1e-2) for name in first)


RANKS = """
import json, sys
import numpy as np
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import SequenceCollator
from modeling_glintru.evaluation import RankingMetrics, target_ranks
import torch

class Seen(RankingMetrics):
    def __call__(self, prediction, compute_result=True):
        self.seen = getattr(self, "seen", []) + prediction.predictions.tolist()
        return super().__call__(prediction, compute_result)

torch.manual_seed(0)
model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=40, hidden_size=16, num_attention_heads=2))
found = {}
for batched in (True, False):
    for users in (1, 2, 3, 4, 5, 8, 9, 11):
        rng = np.random.default_rng(users)
        rows = [{"item_ids": rng.integers(1, 40, 3 + 2 * user).tolist(), "target": 7} for user in range(users)]
        metrics = Seen((10,))
        arguments = TrainingArguments(
            sys.argv[1], per_device_eval_batch_size=2, batch_eval_metrics=batched, remove_unused_columns=False,
            use_cpu=True, report_to="none", disable_tqdm=True, dataloader_pin_memory=False)
        trainer = Trainer(
            model, arguments, eval_dataset=Dataset.from_list(rows), data_collator=SequenceCollator(16),
            compute_metrics=metrics, preprocess_logits_for_metrics=target_ranks)
        trainer.evaluate()
        found[f"{batched} {users}"] = metrics.seen
if trainer.is_world_process_zero():
    print("FOUND", json.dumps(found))
"""


@pytest.mark.slow
def test_every_user_is_ranked_once(tmp_path, monkeypatch, capsys):
    """However many there are: nobody is left out, and nobody counts twice to fill the last batch."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS + "from modeling_glintru.machine import leave; leave(0)")
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    exec(RANKS, {})
    outputs = (capsys.readouterr().out, launch(2, script, tmp_path).stdout)
    one, two = (json.loads(output.partition("FOUND ")[2].splitlines()[0]) for output in outputs)
    assert all(len(ranks) == int(name.split()[1]) for name, ranks in one.items())
    assert two == one


@pytest.mark.slow
def test_a_sharded_item_table_gives_the_same_losses(tmp_path, monkeypatch, capsys):
    script, table = str(ROOT / "examples" / "train_sharded.py"), tmp_path / "log.csv"
    synthetic_interactions(num_users=200, num_items=60).frame.write_csv(table)
    options = ["--data", str(table), "--num_train_epochs", "2", "--dropout", "0", "--output_dir"]
    monkeypatch.setattr(machine, "leave", lambda code: None)
    monkeypatch.setattr(sys, "argv", [script, *options, str(tmp_path / "1")])
    runpy.run_path(script, run_name="__main__")
    one, two = capsys.readouterr().out, launch(2, script, *options, tmp_path / "2").stdout
    assert "process 0 keeps 31 of 61 rows" in two and "process 1 keeps 30 of 61 rows" in two
    losses = [[float(text) for text in re.findall(r"loss ([\d.]+)", output)] for output in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=2e-5) and losses[0][1] < losses[0][0]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "12")
    assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_with_trainer.py", "train_with_accelerate.py"])
def test_examples_in_two_processes(name, tmp_path):
    output = launch(2, ROOT / "examples" / name, "--num_train_epochs", "1", "--output_dir", tmp_path / "model").stdout
    assert output.count("test ndcg@10") == 1
    assert float(re.search(r"test ndcg@10 ([\d.]+)", output).group(1)) > 0.3
