"""A shop with a model, and the commands that write something into its folder."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from modeling_glintru.serving import SQLiteStateStore, StreamingRecommender

from .processes import Commands, Ended

TINY = [
    *("hidden_size=8", "num_attention_heads=2", "num_hidden_layers=1", "max_length=6", "num_train_epochs=2"),
    *("train_batch_size=16", "r_drop_alpha=0", "cooccurrence_start=0", "num_bootstrap=20"),
]
# They hold times, and digests of the other files, which vary.
DATED = {"metrics.json", "training_log.json", "README.md", "learning_curves.png", "manifest.json"}


def settings(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


@dataclass(frozen=True)
class Work:
    """A command that replaces something of the shop.

    Args:
        words: Its arguments.
        output: What it writes.
        earlier: The arguments that made what was there before.
        again: What the same command needs to replace what is there.
    """

    words: tuple[str, ...]
    output: str
    earlier: tuple[str, ...]
    again: tuple[str, ...] = ("--overwrite",)


@dataclass(frozen=True)
class Result:
    """What a command has left.

    Args:
        content: Of its output.
        names: Of all files and folders of the shop.
        seconds: How long it ran.
        writes: How many calls that write it made.
    """

    content: dict[str, object] | None
    names: list[str]
    seconds: float
    writes: int


def result(folder: Path, work: Work, ended: Ended) -> Result:
    return Result(content(folder / work.output), names(folder), ended.seconds, ended.writes)


TRAIN = ("train", "--data", "clicks.csv", "--quiet", *settings(*TINY), "--output_dir", "trained")
PREPARE = ("prepare", "--data", "clicks.csv", "--output_dir", "prepared")
ALL = ("recommend", "model", "--all", "--data", "clicks.csv", "--quiet")
EVALUATE = ("evaluate", "model", "--data", "clicks.csv", "--quiet", "--output", "figures.json")
EXPORT = ("export", "model", "--output", "exported")
REBUILD = ("rebuild", "trained", "--store", "users.db", "--quiet")
WORKS = {
    "train": Work(TRAIN, "trained", (*TRAIN, *settings("seed=1"))),
    "prepare": Work(PREPARE, "prepared", (*PREPARE, *settings("min_user_interactions=6"))),
    **{
        f"recommend --all to {suffix}": Work(
            (*ALL, "--output", f"all.{suffix}"), f"all.{suffix}", (*ALL, "--top_k", "3", "--output", f"all.{suffix}")
        )
        for suffix in ("csv", "parquet", "jsonl")
    },
    "evaluate": Work(EVALUATE, "figures.json", (*EVALUATE, "--split", "validation"), ()),
    "rebuild": Work(REBUILD, "users.db", (), ()),
}


def make_shop(folder: Path, commands: Commands) -> None:
    """Writes `clicks.csv`, two models (`model` and `trained`), and what the commands have written earlier."""
    draw = random.Random(0)
    lines = [f"u{user},i{draw.randrange(12)},{1000 * user + n}" for user in range(16) for n in range(5 + user % 3)]
    (folder / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    commands.well(*TRAIN[:-1], "model", cwd=folder)
    for work in WORKS.values():
        if work.earlier:
            commands.well(*work.earlier, cwd=folder)
    with StreamingRecommender.from_pretrained(folder / "model", folder / "users.db") as recommender:
        recommender.observe_many([(f"u{n}", item) for n in range(40) for item in recommender.processor.item_ids[:3]])


def content(path: Path) -> dict[str, object] | None:
    """What a file or folder holds, but for the words that say when it was made; None where there is nothing."""
    if path.suffix == ".db":
        return _content_of_store(path)
    if path.is_file():
        return {path.name: path.read_bytes()}
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    if "manifest.json" in files:
        described = json.loads(files["manifest.json"].read_text())["files"]
        for name, entry in described.items():
            assert entry["sha256"] == hashlib.sha256(files[name].read_bytes()).hexdigest(), (path, name)
    found = {name: name in DATED or file.read_bytes() for name, file in files.items() if not name.startswith("checkp")}
    return found or None


def _content_of_store(path: Path) -> dict[str, object]:
    with SQLiteStateStore(path) as store, store._reader() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}


def copy_shop(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def names(folder: Path) -> list[str]:
    """Of everything in the folder, at any depth: what nobody removes is seen here."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*"))
