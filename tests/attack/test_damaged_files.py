"""A model folder or a store with damaged bytes, anywhere: the package's own error, or an answer; nothing else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from modeling_glintru import GlintRUProcessor
from modeling_glintru.errors import GlintRUError, StoreError
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.serving import SQLiteStateStore, StreamingRecommender

from ..model.helpers import small_model
from .conftest import tries

FILES = ("config.json", "preprocessor_config.json", "item_vocabulary.safetensors", "model.safetensors")
ITEMS = [f"item-{number:02d}" for number in range(30)]


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Bytes are flipped or overwritten, most often near the beginning, where the headers are; or the end is lost."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8, 50])):
        place = min(draw.randrange(len(changed)), draw.randrange(len(changed) * 10))
        place = draw.choice([place, place % 400, place % 4096]) % len(changed)
        changed[place] = draw.choice([changed[place] ^ 1 << draw.randrange(8), draw.randrange(256), 0, 255])
    if draw.random() < 0.1:
        del changed[draw.randrange(len(changed)) :]
    return bytes(changed)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    small_model().save_pretrained(folder / "model")
    GlintRUProcessor(ITEMS, {"item-03": "Three"}, max_length=20).save_pretrained(folder / "model")
    with StreamingRecommender.from_pretrained(folder / "model", folder / "users.db") as recommender:
        events = [(f"user-{n % 40}", ITEMS[n * 7 % 30], f"event-{n}") for n in range(400)]
        recommender.observe_many([*events, *((number, ITEMS[number], None) for number in range(20))])
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_model_folder(sound, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(sound / "model", folder)
    (folder / "manifest.json").unlink()  # which would refuse every damaged byte: see test_manifest.py
    content, refused = (folder / name).read_bytes(), 0
    for seed in range(tries(60, 1 / 3)):
        (folder / name).unlink()
        (folder / name).write_bytes(damaged(random.Random(f"{name} {seed}"), content))
        try:
            model, processor = load_model_folder(folder)
            with torch.inference_mode():
                logits = model(torch.tensor([[1, 2, 3]])).logits
            assert logits.shape == (1, model.config.vocab_size) and len(processor) == model.config.vocab_size - 1
        except GlintRUError as error:
            assert len(str(error)) < 1000, seed
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{name}, try {seed}") from error
    assert refused


def test_a_store(sound, tmp_path):
    """SQLite's pages have no checksums, as states have: what is read of other cells may be other text."""
    content = (sound / "users.db").read_bytes()
    (model, processor), file, refused = load_model_folder(sound / "model"), tmp_path / "users.db", 0
    for seed in range(tries(100, 1)):
        for old in tmp_path.glob("users.db*"):
            old.unlink()
        file.write_bytes(damaged(random.Random(f"store {seed}"), content))
        try:
            with StreamingRecommender(model, processor, file) as recommender:
                for user in ("user-3", 7, "nobody"):
                    recommender.store.events(user)
                    recommender.recommend(user, top_k=3)
                recommender.observe("user-3", ITEMS[0], "event-3")
                recommender.observe("user-3", ITEMS[0], "event-new")
                list(recommender.store.users())
                recommender.rebuild("user-5")
        except StoreError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, seed
            refused += 1
        except BaseException as error:
            raise AssertionError(f"store, try {seed}") from error
    assert refused
    assert SQLiteStateStore(sound / "users.db").events("user-3")
