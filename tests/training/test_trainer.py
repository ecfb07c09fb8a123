"""Training: the sampler, the seed, accumulation, the kept epoch, the recipe's fields."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments, set_seed

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingPrefixes, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import RecipeError
from modeling_glintru.evaluation import ModelScorer, RankingMetrics, evaluate, target_ranks
from modeling_glintru.recipe import TrainingRecipe, load_recipe
from modeling_glintru.training import GlintRUTrainer, train
from modeling_glintru.training.checkpoint import RunTrainer
from modeling_glintru.training.run import training_arguments, use_bf16


@pytest.fixture(scope="module")
def data():
    return prepare(load_source("demo"))


def arguments(folder: Path, **options) -> TrainingArguments:
    defaults = {
        "per_device_train_batch_size": 16,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
    }
    return TrainingArguments(str(folder), **(defaults | options))


LARGE_BATCHES = {"per_device_train_batch_size": 200}


def trained(data, folder: Path, kind: type[Trainer] = GlintRUTrainer, dropout: float = 0.2, windows=None, **options):
    """The weights after a few steps."""
    set_seed(options.get("seed", 42))
    rates = dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), dropout)
    config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=16, num_attention_heads=2, **rates)
    trainer = kind(
        model=GlintRUForSequentialRecommendation(config),
        args=arguments(folder, **options),
        data_collator=SequenceCollator(32),
        train_dataset=windows or TrainingWindows(data.dataset["train"], 32),
    )
    trainer.train()
    return trainer.model.state_dict()


def test_batches_of_like_targets(data, tmp_path):
    windows = TrainingWindows(data.dataset["train"], 32, random_shift=True)
    trainer = GlintRUTrainer(
        model=GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=241, hidden_size=16, num_attention_heads=2)),
        args=arguments(tmp_path, max_steps=-1, num_train_epochs=2, logging_steps=1),
        data_collator=SequenceCollator(32),
        train_dataset=windows,
        batch_targets=2000,
    )
    loader = trainer.get_train_dataloader()
    passes = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        passes.append([int((batch["labels"] != -100).sum()) for batch in loader])
        assert len(passes[-1]) == len(loader) == windows.num_targets // 2000
        assert sum(passes[-1]) == windows.num_targets
        assert max(passes[-1]) - min(passes[-1]) < 64
    assert passes[0] != passes[1]
    trainer.train()
    assert trainer.state.global_step == 2 * len(loader)


def distance(a, b) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_the_sampler(data, tmp_path):
    windows = TrainingWindows(data.dataset["train"], 32)
    trainer = GlintRUTrainer(
        model=GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=241, hidden_size=16, num_attention_heads=2)),
        args=arguments(tmp_path, data_seed=5),
        data_collator=SequenceCollator(32),
        train_dataset=windows,
    )
    loader = trainer.get_train_dataloader()
    sampler = loader.batch_sampler.sampler
    assert isinstance(sampler, LengthBucketSampler)
    assert (sampler.batch_size, sampler.seed) == (16, 5)
    batches = list(loader)
    trainer.args.dataloader_drop_last = True
    assert len(trainer.get_train_dataloader()) == len(windows) // 16 == len(batches) - (len(windows) % 16 > 0)
    trainer.train_dataset = data.dataset["train"]  # without lengths
    assert not isinstance(trainer.get_train_dataloader().sampler, LengthBucketSampler)
    targets = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    assert targets == windows.num_targets
    assert 1 - targets / sum(batch["labels"].numel() for batch in batches) < 0.1  # little padding


def test_each_epoch_has_its_own_order(data, tmp_path):
    seen = []

    class Recorder(GlintRUTrainer):
        def training_step(self, model, inputs, *rest):
            seen.append((round(self.state.epoch, 3), inputs["input_ids"].sum().item()))
            return super().training_step(model, inputs, *rest)

    trained(data, tmp_path, Recorder, max_steps=-1, num_train_epochs=2, **LARGE_BATCHES)
    first, second = [s for e, s in seen if e < 1], [s for e, s in seen if e >= 1]
    assert len(first) == len(second) > 2 and first != second


def test_the_seed_decides(data, tmp_path):
    first, same, other = (trained(data, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert distance(first, same) == 0
    assert distance(first, other) > 1e-3


def test_the_seed_of_the_recipe_decides(data, tmp_path):
    """Initial weights too, whatever random numbers were drawn before."""
    weights = []
    for before, seed in ((0, 1), (9, 1), (0, 2)):
        torch.manual_seed(before)
        result = run(load_recipe("demo", ["num_train_epochs=1", f"seed={seed}"]), data, tmp_path)
        weights.append(result.model.state_dict())
    assert distance(weights[0], weights[1]) == 0
    assert distance(weights[0], weights[2]) > 1e-3


@pytest.mark.parametrize("kind", [Trainer, GlintRUTrainer])
def test_accumulation_equals_the_larger_batch(data, tmp_path, kind):
    """The loss is a mean over targets, not over windows: parts of unequal size must not count alike."""
    options = {"dropout": 0.0, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "kind": kind}
    if kind is GlintRUTrainer:  # buckets follow the batch size; take the order as it stands
        options["kind"] = type("Ordered", (kind,), {"_batch_sampler": lambda self: None})
    options["train_sampling_strategy"] = "sequential"
    whole = trained(data, tmp_path, per_device_train_batch_size=16, **options)
    parts = trained(data, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4, **options)
    start = trained(data, tmp_path, **{**options, "learning_rate": 0.0})
    assert distance(whole, start) > 0.05
    assert distance(whole, parts) < 1e-5


def run(recipe, data, folder):
    metrics = {"compute_metrics": RankingMetrics((10,)), "preprocess_logits_for_metrics": target_ranks}
    return train(recipe, data, folder, progress=False, **metrics)


def test_the_weights_of_the_best_epoch_are_kept(data, tmp_path):
    options = ["num_train_epochs=4", "learning_rate=0.05", "early_stopping_patience=null", "precision=fp32"]
    recipe = load_recipe("demo", options)
    result = run(recipe, data, tmp_path)
    scores = {entry["epoch"]: entry["eval_ndcg@10"] for entry in result.log_history if "eval_ndcg@10" in entry}
    assert len(scores) == 4
    assert result.best_epoch == max(scores, key=scores.get)
    again = evaluate(ModelScorer(result.model, recipe.training.max_length), data.dataset["validation"], progress=False)
    value = again.table(num_bootstrap=1)["ndcg@10"]["value"]
    assert value == pytest.approx(max(scores.values()), abs=1e-4)


def test_the_kept_epoch_is_the_best_and_not_the_last(data, tmp_path, monkeypatch):
    """With a metric that is dictated: best in epoch 2 of 3."""
    values, weights = [0.1, 0.3, 0.2], []

    class Watched(RunTrainer):
        def evaluate(self, *args, **kwargs):
            weights.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
            return super().evaluate(*args, **kwargs)

    def dictated(prediction, compute_result=True):
        return {"ndcg@10": values[len(weights) - 1]} if compute_result else {}

    monkeypatch.setattr("modeling_glintru.training.run.RunTrainer", Watched)
    recipe = load_recipe("demo", ["num_train_epochs=3", "early_stopping_patience=null"])
    result = train(
        recipe,
        data,
        tmp_path,
        compute_metrics=dictated,
        preprocess_logits_for_metrics=target_ranks,
        progress=False,
    )
    assert result.best_epoch == 2 and len(weights) == 3
    kept = result.model.state_dict()
    assert distance(kept, weights[1]) == 0
    assert distance(kept, weights[0]) > 1e-3 and distance(kept, weights[2]) > 1e-4


def test_early_stopping_stops(data, tmp_path):
    recipe = load_recipe(
        "demo", ["num_train_epochs=30", "learning_rate=1e-9", "early_stopping_patience=1", "warmup_steps=0"]
    )
    result = run(recipe, data, tmp_path)
    assert result.summary()["epochs"] < 6


@pytest.mark.parametrize("kind", ["popularity", "in_batch", "mixed"])
def test_popularity_sampling_gets_the_counts(data, tmp_path, kind):
    options = ["num_train_epochs=1", "loss=sampled_softmax", "num_negatives=16", f"negative_sampling={kind}"]
    result = run(load_recipe("demo", options), data, tmp_path)
    assert torch.equal(result.model.training_loss.popularity.counts, torch.from_numpy(data.item_counts))


def test_every_training_field_of_the_recipe_arrives(tmp_path):
    names = {
        "train_batch_size": "per_device_train_batch_size",
        "eval_batch_size": "per_device_eval_batch_size",
        "metric": "metric_for_best_model",
    }
    elsewhere = {"max_length", "early_stopping_patience", "random_window_shift", "precision", "prefix_share"}
    elsewhere |= {"train_batch_targets", "cooccurrence_start", "cooccurrence_smoothing", "refit"}
    changes = {
        "num_train_epochs": 3,
        "train_batch_size": 7,
        "eval_batch_size": 9,
        "learning_rate": 0.123,
        "lr_scheduler_type": "linear",
        "warmup_steps": 11,
        "weight_decay": 0.5,
        "max_grad_norm": 0.25,
        "metric": "hr@5",
        "dataloader_num_workers": 2,
        "logging_steps": 13,
    }
    assert {field.name for field in dataclasses.fields(TrainingRecipe)} == elsewhere | changes.keys()
    recipe = load_recipe("demo", [f"training.{key}={value}" for key, value in changes.items()] + ["seed=77"])
    made = training_arguments(recipe, tmp_path, progress=False)
    for key, value in changes.items():
        assert getattr(made, names.get(key, key)) == (f"eval_{value}" if key == "metric" else value), key
    assert made.seed == 77


def test_the_other_training_fields_arrive(data, tmp_path, monkeypatch):
    """Those that are not arguments of the Trainer, in what the Trainer is given."""
    given = {}

    class Started(Exception):
        pass

    def trainer(**options):
        given.update(options)
        raise Started

    monkeypatch.setattr("modeling_glintru.training.run.RunTrainer", trainer)
    options = [
        "max_length=9",
        "random_window_shift=true",
        "early_stopping_patience=7",
        "train_batch_targets=99",
        "seed=77",
    ]
    with pytest.raises(Started):
        run(load_recipe("demo", options), data, tmp_path)
    windows, (stopping, interruptions) = given["train_dataset"], given["callbacks"]
    assert (windows.max_length, windows.random_shift, windows.seed) == (9, True, 77)
    assert given["data_collator"].max_length == 9
    assert given["batch_targets"] == 99
    assert stopping.early_stopping_patience == 7
    with pytest.raises(Started):
        run(load_recipe("demo", ["early_stopping_patience=null"]), data, tmp_path)
    assert [type(callback) for callback in given["callbacks"]] == [type(interruptions)]
    assert not given["train_dataset"].random_shift
    assert type(windows) is TrainingWindows
    random_start = given["model"].get_input_embeddings().weight.detach().clone()
    with pytest.raises(Started):
        run(load_recipe("demo", ["cooccurrence_start=0.5"]), data, tmp_path)
    start = given["model"].get_input_embeddings().weight.detach()
    assert not torch.allclose(start, random_start) and not start[0].any()
    assert given["smoothing"] is None
    with pytest.raises(Started):
        run(load_recipe("demo", ["cooccurrence_smoothing=0.5"]), data, tmp_path)
    assert given["smoothing"].weight == 0.5
    assert given["smoothing"].table is given["model"].get_input_embeddings()
    with pytest.raises(Started):
        run(load_recipe("demo", ["model.name=bsarec", "prefix_share=0.5", "max_length=9", "seed=77"]), data, tmp_path)
    prefixes = given["train_dataset"]
    assert isinstance(prefixes, TrainingPrefixes)
    assert (prefixes.max_length, prefixes.share, prefixes.seed) == (9, 0.5, 77)
    assert given["model"].config.max_position_embeddings == 9
    with pytest.raises(RecipeError, match="train_batch_targets is for models that train on windows"):
        run(load_recipe("demo", ["model.name=bsarec", "train_batch_targets=400"]), data, tmp_path)


def test_windows_move_from_epoch_to_epoch(data, tmp_path):
    """Accelerate tells the sampler of a new epoch; the windows must hear of it too."""
    seen = {}

    class Recorder(GlintRUTrainer):
        def training_step(self, *inputs):
            seen.setdefault(int(self.state.epoch), self.train_dataset._starts.tolist())
            return super().training_step(*inputs)

    windows = TrainingWindows(data.dataset["train"], 8, random_shift=True)
    trained(data, tmp_path, Recorder, windows=windows, max_steps=-1, num_train_epochs=2, **LARGE_BATCHES)
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("cuda", "cuda_bf16", "mps", "avx512_bf16", "expected"),
    [
        (True, True, False, False, True),
        (True, False, False, True, False),  # the GPU does the work, whatever the CPU can do
        (False, False, False, True, True),
        (False, False, False, False, False),
        (False, False, True, True, False),
    ],
)
def test_precision(tmp_path, monkeypatch, cuda, cuda_bf16, mps, avx512_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    assert use_bf16("auto") is expected
    assert use_bf16("bf16") and not use_bf16("fp32")


def test_precision_arrives(tmp_path):
    for precision, expected in (("bf16", True), ("fp32", False)):
        made = training_arguments(load_recipe("demo", [f"precision={precision}"]), tmp_path, progress=False)
        assert made.bf16 is expected


def test_sharded_weights_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match=r"examples/train_sharded\.py"):
        run(load_recipe("demo"), data, tmp_path)
