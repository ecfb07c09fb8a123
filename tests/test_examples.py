"""The examples run on the demo data, and what they leave behind works."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
from transformers import AutoModel, AutoProcessor

from modeling_glintru import GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.data import load_source, synthetic_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, PopularityScorer, evaluate

from .hub_server import ANN

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def demo():
    return prepare(load_source("demo"))


def run(name: str, folder: Path, *arguments: str, offline: bool = True) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(name: str, *arguments: str) -> str:
    """The same in this process, for examples that another test runs in a process of their own."""
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", [name, *arguments]), contextlib.redirect_stdout(printed):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return printed.getvalue()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> tuple[Path, str]:
    """The model folder of the quickstart, and what it printed. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("quickstart") / "model"
    return folder, run("quickstart.py", folder, "--output_dir", str(folder), "--num_train_epochs", "3")


def ndcg(scorer, split) -> float:
    return evaluate(scorer, split, ks=(10,), progress=False).table(num_bootstrap=1)["ndcg@10"]["value"]


def load(folder: Path):
    """The saved model and processor, with the package's classes and the length that the model was trained with."""
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is GlintRUForSequentialRecommendation and type(processor) is GlintRUProcessor
    assert (folder / "model.safetensors").is_file()
    assert processor.max_length == 32
    return model, processor


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_with_trainer.py", "train_with_accelerate.py"])
def test_training_examples(name, tmp_path, demo):
    folder = tmp_path / "model"
    output = run(name, folder, "--output_dir", str(folder), "--num_train_epochs", "3")
    printed = float(re.search(r"test ndcg@10 ([\d.]+)", output).group(1))
    assert printed > 10 * ndcg(PopularityScorer(demo.item_counts), demo.dataset["test"])

    model, processor = load(folder)
    assert processor.item_ids == demo.processor.item_ids
    assert printed == pytest.approx(ndcg(ModelScorer(model, 32), demo.dataset["test"]), abs=1e-3)
    recommended = output.splitlines()[-1]  # after the first three volumes
    assert "saga-01-volume-4" in recommended
    assert not any(f"saga-01-volume-{seen}'" in recommended for seen in (1, 2, 3))


@pytest.mark.slow
def test_fine_tuning(tmp_path):
    base, tuned, file = tmp_path / "base", tmp_path / "tuned", tmp_path / "later.csv"
    # One epoch leaves room to improve, whatever the first weights are.
    run_here("train_with_trainer.py", "--output_dir", str(base), "--num_train_epochs", "1")
    frame = synthetic_interactions(num_users=150, num_items=240, seed=9).frame
    frame.with_columns(pl.col("item_id").str.replace("saga-03", "saga-new")).write_csv(file)
    output = run("fine_tune.py", tuned, str(base), "--data", str(file), "--output_dir", str(tuned))
    before, after = map(float, re.findall(r"test ndcg@10 ([\d.]+)", output))
    assert after > before and "8 new items" in output
    (_, old), (model, now) = load(base), load(tuned)
    assert now.item_ids[:240] == old.item_ids and "saga-new-volume-1" in now and model.config.vocab_size == 249


@pytest.mark.slow
def test_quickstart(quickstart, tmp_path):
    folder, output = shutil.copytree(quickstart[0], tmp_path / "model"), quickstart[1]
    assert "Chosen    max_length" in output and re.search(r"on the test split: ndcg@10 0\.[1-9]", output)
    recommended = output[output.index("on the test split") :]
    assert re.search(r"after saga-01-volume-1, saga-01-volume-2, saga-01-volume-3:\n  saga-\S+  Saga", recommended)
    assert len(recommended.splitlines()) == 1 + 6 + 4
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is GlintRUForSequentialRecommendation and type(processor) is GlintRUProcessor

    # A model that is already where the new one would go is not trained over.
    weights, notes = (folder / "model.safetensors").read_bytes(), folder / "notes.md"
    notes.write_text("precious")
    assert run_here("quickstart.py", "--output_dir", str(folder), "--num_train_epochs", "1") == recommended
    assert (folder / "model.safetensors").read_bytes() == weights and notes.read_text() == "precious"

    table = tmp_path / "clicks.csv"
    synthetic_interactions(num_users=120, num_items=48).frame.write_csv(table)
    other = tmp_path / "other"
    assert "after" in run_here("quickstart.py", str(table), "--output_dir", str(other), "--num_train_epochs", "1")


@pytest.mark.slow
def test_streaming(tmp_path):
    output = run("streaming.py", tmp_path / "unused", "--days", "40", "--num_train_epochs", "3")
    rates = [float(line.rsplit(" ", 1)[1]) for line in output.splitlines() if "hit rate at 10" in line]
    assert len(rates) == 6 and rates[-1] > 0.4  # ten items of some hundreds by chance: below 0.1


@pytest.mark.slow
def test_train_on_your_table(tmp_path):
    folder = tmp_path / "model"
    output = run("train_on_your_table.py", folder, "--output_dir", str(folder), "--num_train_epochs", "3")
    assert "two blocks for sparse data, one for other" in output  # the reason of a choice
    lines = re.findall(r"^([\w-]+): test ndcg@10 ([\d.]+)", output, re.MULTILINE)
    found = {name: float(value) for name, value in lines}
    assert list(found) == ["GLINT-RU", "popularity", "item_knn"] and found["GLINT-RU"] > 10 * found["popularity"]
    assert re.search(r"after .*saga-01-volume-3: .*saga-01-volume-4", output)


@pytest.mark.slow
def test_push_and_pull(hub, quickstart, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", ANN)
    folder = shutil.copytree(quickstart[0], tmp_path / "model")
    output = run("push_and_pull.py", folder, str(folder), "ann/demo", offline=False)
    assert hub.repo("ann/demo").private and "model.safetensors" in output
    recommended = [line.split(": ")[1] for line in output.splitlines() if ": " in line][-2:]
    assert recommended[0] == recommended[1] and recommended[0].count(", ") == 2
    assert "changed: nothing" in run_here("push_and_pull.py", str(folder), "ann/demo")


@pytest.mark.parametrize("name", [file.name for file in sorted(EXAMPLES.glob("*.py"))])
def test_examples_are_short(name):
    limit = 75 if name == "train_sharded.py" else 60
    assert len((EXAMPLES / name).read_text().splitlines()) <= limit
