"""A run that was stopped, wherever that was, goes on to the same weights and the same log."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_glintru.data import TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import ModelFolderError
from modeling_glintru.evaluation import target_ranks
from modeling_glintru.recipe import load_recipe
from modeling_glintru.training import TrainingResult, checkpoint, train
from modeling_glintru.training.checkpoint import read_optimizer, read_weights, write_optimizer, write_weights
from modeling_glintru.training.stopping import Interruptions, RunStopped

# Five steps an epoch, all random numbers in use, and an end by early stopping in epoch 3 of 6.
OPTIONS = [
    *("num_train_epochs=6", "train_batch_size=400", "learning_rate=0.03", "early_stopping_patience=1"),
    *("random_window_shift=true", "max_length=10", "logging_steps=4", "precision=fp32", "warmup_steps=3"),
    *("loss=sampled_softmax", "num_negatives=20"),
]


@pytest.fixture(scope="module")
def data():
    return prepare(load_source("demo"))


VALIDATION = {5: 0.1, 10: 0.3, 15: 0.2}  # dictated by step, so that the best epoch and the last are known


def run(data, folder: Path, *options: str, interruptions: Interruptions | None = None, **more) -> TrainingResult:
    interruptions = interruptions or Interruptions()
    step, on_step_end = 0, interruptions.on_step_end

    def noted(args, state, control, **kwargs):
        nonlocal step
        step = state.global_step
        return on_step_end(args, state, control, **kwargs)

    interruptions.on_step_end = noted
    return train(
        load_recipe("demo", [*OPTIONS, *options]),
        data,
        folder,
        compute_metrics=lambda prediction, compute_result: {"ndcg@10": VALIDATION[step]} if compute_result else {},
        preprocess_logits_for_metrics=target_ranks,
        interruptions=interruptions,
        progress=False,
        **{"say": lambda text: None, **more},
    )


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> TrainingResult:
    """The run that nobody stopped; it saves at the ends of epochs only."""
    return run(data, tmp_path_factory.mktemp("whole"))


def log(result: TrainingResult) -> list[dict]:
    timed = ("runtime", "per_second")
    return [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in result.log_history]


def assert_same(result: TrainingResult, whole: TrainingResult) -> None:
    ours, theirs = result.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert log(result) == log(whole)
    assert (result.steps, result.best_epoch) == (whole.steps, whole.best_epoch)


class StopAfter(Interruptions):
    """As a signal does, after one of the steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.signal = 15
        super().on_step_end(args, state, control, **kwargs)


def test_the_whole_run_ends_early(whole):
    """Otherwise the tests below would not see what they look for."""
    assert (whole.best_epoch, whole.summary()["epochs"], whole.steps) == (2, 3, 15)


def test_stopped_in_and_between_epochs(data, whole, tmp_path):
    for number, step in enumerate((1, 4, 5, 8, 14, 15)):
        with pytest.raises(RunStopped, match=f"stopped at step {step} of") as stop:
            run(data, tmp_path, resume=number > 0, interruptions=StopAfter(step))
        assert stop.value.exit_code == 143
    assert_same(run(data, tmp_path, resume=True), whole)


@pytest.mark.parametrize(
    "options", [[], ["cooccurrence_smoothing=1"], ["cooccurrence_smoothing=1", "loss=cross_entropy"]]
)
def test_batches_of_as_many_targets_go_on_too(data, tmp_path, options):
    targets = TrainingWindows(data.dataset["train"], 10).num_targets
    options = [f"train_batch_targets={targets // 5}", *options]
    whole = run(data, tmp_path / "whole", *options)
    assert whole.steps == 15
    for number, step in enumerate((3, 8)):
        with pytest.raises(RunStopped):
            run(data, tmp_path / "again", *options, resume=number > 0, interruptions=StopAfter(step))
    assert_same(run(data, tmp_path / "again", *options, resume=True), whole)


class Killed(BaseException):
    """Nothing of ours catches it."""


@pytest.mark.parametrize("seed", range(2))
def test_killed_while_a_checkpoint_is_written(data, whole, tmp_path, monkeypatch, seed):
    """Several times in one run, at random places: before and after the checkpoint has its name."""
    draw, flush = random.Random(seed), checkpoint.flush
    left = 0

    def counted(path):
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        flush(path)

    monkeypatch.setattr(checkpoint, "flush", counted)
    for number in range(4):
        left = draw.randint(1, 35)
        with pytest.raises(Killed):
            run(data, tmp_path, resume=number > 0, interruptions=Interruptions(save_seconds=0))
    left = -1
    assert_same(run(data, tmp_path, resume=True), whole)


def stopped(data, folder: Path, step: int) -> Path:
    """A run with checkpoints up to `step`; returns the newest."""
    interruptions = StopAfter(step)
    interruptions.save_seconds = 0
    with pytest.raises(RunStopped):
        run(data, folder, interruptions=interruptions)
    return folder / "checkpoints" / f"checkpoint-{step}"


@pytest.fixture(scope="module")
def stopped_at(data, tmp_path_factory):
    """`stopped_at(step, folder)` gives a test its own copy of what `stopped` leaves, trained once for each step."""
    trained: dict[int, Path] = {}

    def copy(step: int, folder: Path) -> Path:
        if step not in trained:
            trained[step] = stopped(data, tmp_path_factory.mktemp("stopped"), step)
        checkpoints = trained[step].parent
        return shutil.copytree(checkpoints, folder / checkpoints.name) / trained[step].name

    return copy


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "files.json"])
def test_a_damaged_checkpoint_is_named_and_skipped(data, stopped_at, tmp_path, name, damage):
    newest = stopped_at(3, tmp_path)
    damage(newest / name)
    said: list[str] = []
    with pytest.raises(RunStopped):
        run(data, tmp_path, resume=True, say=said.append, interruptions=StopAfter(4))
    warning, where = said
    assert str(newest) in warning and "damaged" in warning and "skipped" in warning
    assert where == "The run goes on from checkpoint-2"


def test_a_run_goes_on_behind_a_damaged_checkpoint(data, whole, stopped_at, tmp_path):
    flip(stopped_at(8, tmp_path) / "process-0.json")
    assert_same(run(data, tmp_path, resume=True), whole)


def test_a_checkpoint_without_its_best_weights_is_no_use(data, stopped_at, tmp_path):
    """Checkpoints of the second epoch need the weights of the first."""
    newest = stopped_at(8, tmp_path)
    best = json.loads((newest / "trainer_state.json").read_text())["best_global_step"]
    assert best == 5
    flip(newest.with_name(f"checkpoint-{best}") / "model.safetensors")
    said: list[str] = []
    with pytest.raises(ModelFolderError, match=r"no checkpoint in .* is whole; start again with --overwrite"):
        run(data, tmp_path, resume=True, say=said.append)
    assert f"its best epoch's checkpoint-{best}" in said[0]


def test_few_checkpoints_are_kept(stopped_at, tmp_path):
    newest = stopped_at(13, tmp_path)
    best = json.loads((newest / "trainer_state.json").read_text())["best_global_step"]
    names = {entry.name for entry in newest.parent.iterdir()}
    assert names == {"checkpoint-12", "checkpoint-13", f"checkpoint-{best}"}


def test_without_a_checkpoint_it_starts_at_the_beginning(data, whole, tmp_path):
    said: list[str] = []
    (tmp_path / "checkpoints" / "checkpoint-1.partial").mkdir(parents=True)
    assert_same(run(data, tmp_path, resume=True, say=said.append), whole)
    assert said == ["The run goes on from the beginning: no checkpoint was written yet"]


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_checkpoint_of_an_earlier_version_is_refused(data, stopped_at, tmp_path):
    newest = stopped_at(8, tmp_path)
    file = newest / "process-0.json"
    own = json.loads(file.read_text(encoding="utf-8"))
    del own["ended"]  # which earlier versions did not write
    file.write_text(json.dumps(own), encoding="utf-8")
    sums = json.loads((newest / "files.json").read_text(encoding="utf-8"))
    (newest / "files.json").write_text(json.dumps(sums | {file.name: checkpoint.checksum(file)}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"written by an earlier version.*--overwrite"):
        run(data, tmp_path, resume=True)


def test_nothing_is_unpickled(data, stopped_at, tmp_path):
    """Under every name that the plain Trainer reads or writes pickles, and as every file of our own."""
    newest, marker = stopped_at(8, tmp_path), tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(marker))
    pickle.loads(bomb)
    assert marker.exists()
    marker.unlink()
    ours = [file.name for file in newest.iterdir()]
    foreign = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin", "scaler.pt"]
    for name in foreign:
        (newest / name).write_bytes(bomb)
    # What lies beside our files is not looked at: the run goes on from this checkpoint.
    said: list[str] = []
    with pytest.raises(RunStopped):
        run(data, tmp_path, resume=True, say=said.append, interruptions=StopAfter(9))
    assert said == [f"The run goes on from {newest.name}"]
    # With the checksums made to fit, our own files are read, and refused as what they are.
    for name in set(ours) - {"files.json", "trainer_state.json"}:
        folder = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{name}")) / "checkpoints"
        shutil.rmtree(folder / "checkpoint-9", ignore_errors=True)
        tampered = folder / newest.name
        (tampered / name).write_bytes(bomb)
        sums = {file: checkpoint.checksum(tampered / file) for file in ours if file != "files.json"}
        (tampered / "files.json").write_text(json.dumps(sums))
        with pytest.raises(Exception):  # noqa: B017 (whatever the parser of safetensors or JSON says)
            run(data, folder.parent, resume=True)
    assert not marker.exists()


def test_only_safetensors_and_json_are_written(stopped_at, tmp_path):
    newest = stopped_at(3, tmp_path)
    assert {file.suffix for file in newest.iterdir()} == {".safetensors", ".json"}


def test_weights_that_are_parts_of_one_tensor_survive(tmp_path):
    model, other = torch.nn.GRU(3, 4), torch.nn.GRU(3, 4)
    names = [name for name, _ in model.named_parameters()]
    flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])  # as cuDNN lays them on a GPU
    for weight in model.parameters():
        part, flat = flat[: weight.numel()], flat[weight.numel() :]
        weight.data = part.view_as(weight)
    assert len({weight.untyped_storage().data_ptr() for weight in model.parameters()}) == 1
    write_weights(tmp_path / "w.safetensors", model)
    read_weights(tmp_path / "w.safetensors", other)
    for name in names:
        assert torch.equal(getattr(model, name), getattr(other, name))


def test_optimizer_states_survive(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.99))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["note"] = 0.1  # not a tensor
    write_optimizer(tmp_path / "o.safetensors", state)
    again = read_optimizer(tmp_path / "o.safetensors")
    assert [list(entry) for entry in again["state"].values()].count([]) == 0
    for index, entry in state["state"].items():
        for name, value in entry.items():
            assert torch.equal(torch.as_tensor(again["state"][index][name]), torch.as_tensor(value))
    assert again["param_groups"][0]["lr"] == 0.1 and list(again["param_groups"][0]["betas"]) == [0.8, 0.99]


def test_random_numbers_go_on():
    state = json.loads(json.dumps(checkpoint.random_state()))
    draws = [(random.random(), np.random.rand(), torch.rand(()).item()) for _ in range(2)]
    checkpoint.set_random_state(state)
    assert [(random.random(), np.random.rand(), torch.rand(()).item()) for _ in range(2)] == draws


def test_a_time_limit_stops_between_two_epochs_as_well(data, tmp_path):
    with pytest.raises(RunStopped, match=r"stopped after --max_minutes at step 1 of .*--resume") as stop:
        run(data, tmp_path, interruptions=Interruptions(deadline=0.0))
    assert stop.value.exit_code == 0
