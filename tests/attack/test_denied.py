"""Folders and files that another user may not read or write: one sentence, and what is there stays as it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from ..hub_server import ANN
from .processes import Ended
from .shop import EVALUATE, PREPARE, REBUILD, TRAIN, content, copy_shop

NOBODY = 65534
TRAIN, PREPARE = ((*words, "--overwrite") for words in (TRAIN, PREPARE))
ALL = ("recommend", "model", "--all", "--data", "clicks.csv", "--quiet", "--output", "all.csv", "--overwrite")
WRITE = {
    "train": TRAIN,
    "prepare": PREPARE,
    "recommend": ALL,
    "evaluate": EVALUATE,
    "rebuild": REBUILD,
    "export": ("export", "model", "--output", "exported"),
}
READ = {
    "the table of train": ("clicks.csv", TRAIN),
    "the table of prepare": ("clicks.csv", PREPARE),
    "the table of evaluate": ("clicks.csv", EVALUATE),
    "the table of recommend": ("clicks.csv", ALL),
    "the recipe": ("model/recipe.yaml", ("train", "--recipe", "model/recipe.yaml", *TRAIN[1:])),
    "the recipe of the model": ("model/recipe.yaml", EVALUATE),
    "the folder of the model": ("model", EVALUATE),
    "the config of the model": ("model/config.json", EVALUATE),
    "the weights of the model": ("model/model.safetensors", ALL),
    "the vocabulary of the model": ("model/item_vocabulary.safetensors", ALL),
    "the settings of the model": ("model/preprocessor_config.json", ALL),
    "the folder of a push": ("model", ("push", "model", "ann/small")),
    "a file of a push": ("model/metrics.json", ("push", "model", "ann/small")),
    "the folder of an export": ("model", ("export", "model", "--output", "exported")),
    "the model to go on from": ("model", (*TRAIN, "--from", "model")),
    "the prepared folder": ("prepared", ("train", "--data", "prepared", *TRAIN[3:])),
    "the prepared data sets": ("prepared/dataset", ("train", "--data", "prepared", *TRAIN[3:])),
    "the prepared summary": ("prepared/summary.json", ("train", "--data", "prepared", *TRAIN[3:])),
    "the prepared rows": ("prepared/dataset/train", ("train", "--data", "prepared", *TRAIN[3:])),
    "the store": ("users.db", REBUILD),
    "the folder of an earlier model": ("trained", TRAIN),
    "the folder of earlier data": ("prepared", PREPARE),
    "the current folder": (".", EVALUATE),
}


@pytest.fixture
def mine(shop):
    """A copy of the shop that everybody may read, as only its owner may write."""
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    yield copy_shop(shop, base / "shop")
    shutil.rmtree(base)


def refusal(ended: Ended) -> str:
    """The sentence of a command that was refused, or what stands below the usage of one with a wrong argument."""
    usage, _, problem = ended.err.partition("\n\nError: ")
    return problem if usage.startswith("Usage: ") and ended.code == 2 else ended.sentence()


def all_content(folder: Path) -> dict:
    files = {file: content(file) for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".db"}
    return {file.relative_to(folder).as_posix(): found for file, found in files.items()}


@pytest.mark.parametrize("name", WRITE)
def test_a_folder_of_another_user(commands, mine, name):
    before = all_content(mine)
    ended = commands(*WRITE[name], cwd=mine, user=NOBODY)
    assert any(words in refusal(ended) for words in ("Permission denied", "writable", "read-only")), ended
    assert all_content(mine) == before


@pytest.mark.parametrize("name", READ)
def test_what_nobody_may_read(commands, mine, name, hub):
    path, words = READ[name]
    for file in [mine, *mine.rglob("*")]:
        os.chown(file, NOBODY, NOBODY)
    before = all_content(mine)
    os.chown(mine / path, 0, 0)
    (mine / path).chmod(0o700 if (mine / path).is_dir() else 0o600)
    ended = commands(*words, cwd=mine, user=NOBODY, environment={"HF_TOKEN": ANN})
    assert path == "." or Path(path).parts[0] in refusal(ended)
    assert all_content(mine) == before and not hub.repos


def test_a_home_and_caches_that_cannot_be_used(commands, mine):
    """They are not needed for what is on this machine."""
    for file in [mine, *mine.rglob("*")]:
        os.chown(file, NOBODY, NOBODY)
    (mine.parent / "home").mkdir(mode=0o700)
    home = str(mine.parent / "home")
    places = ("HOME", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "GLINTRU_CACHE", "HF_DATASETS_CACHE")
    how = {"cwd": mine, "user": NOBODY, "environment": dict.fromkeys(places, home)}
    commands.well(*TRAIN, **how)
    commands.well(*PREPARE, **how)
    commands.well(*EVALUATE, **how)
    commands.well(*ALL, **how)
    commands.well(*REBUILD, **how)
