"""Each command killed at any time and before any write: the old or the new result is whole, and the next run works."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling_glintru import GlintRUProcessor
from modeling_glintru.serving import onnx
from modeling_glintru.serving.sqlite_store import SQLiteStateStore
from modeling_glintru.serving.store import Event

from ..hub_server import ANN
from ..model.helpers import small_model
from ..serving.test_processes import kill_writers
from ..serving.test_store import OLD, advance
from .conftest import tries
from .processes import ROOT, killed_at
from .shop import WORKS, content, copy_shop, names

DRAW = random.Random(0)
ITEMS = [f"item-{number:02d}" for number in range(30)]


def kills(number: int, seconds: float, writes: int):
    """Moments: before calls that write, all of them where there are enough tries, and at random times."""
    points = list(range(1, writes + 1))
    share = number - number // 2 if writes else 0
    yield from ({"kill_at": point} for point in sorted(DRAW.sample(points, min(share, writes))))
    yield from ({"kill_after": DRAW.uniform(0, 1.05 * seconds)} for _ in range(number - share))


@pytest.mark.parametrize("name", WORKS)
def test_a_killed_command(commands, shop, unbroken, tmp_path, name):
    work, folder = WORKS[name], copy_shop(shop, tmp_path / "shop")
    again = (*work.words, *work.again)
    old = content(folder / work.output)
    whole = unbroken(name)
    new = whole.content
    assert old != new and old is not None
    seen = {True: 0, False: 0}
    for how in kills(tries(2, 1 / 30), whole.seconds, whole.writes):
        copy_shop(shop, folder)
        ended = commands(*again, below=folder, **how)
        assert ended.killed or ended.code == 0, (how, ended)
        if name == "rebuild":  # looked at in a copy: whoever opens a store repairs it
            found = content(copy_shop(folder, tmp_path / "copy") / work.output)
            assert all(found[table] == old[table] for table in old), how
        else:
            found = content(folder / work.output)
            assert found in (old, new), how
        seen[found == new] += 1
        resumed = name == "train" and (folder / work.output / "checkpoints").exists()
        commands.well(*work.words, *(("--resume",) if resumed else work.again), below=folder)
        assert content(folder / work.output) == new, how
        assert names(folder) == whole.names, how
    print(f"{name}: {sum(seen.values())} kills, after {seen[True]} of them the new result was there")


# ---------------------------------------------------------------------- the Hub


def test_a_killed_push(commands, shop, hub):
    """The branch holds the commit before or the whole new one; the next push brings the rest."""
    words, how = ("push", "trained", "ann/small"), {"below": shop, "environment": {"HF_TOKEN": ANN}}
    before = names(shop)
    unbroken = commands.well("push", "model", "ann/small", **how)
    old = hub.repo("ann/small").files()
    seconds = commands.well(*words, **how).seconds
    new = hub.repo("ann/small").files()
    assert old != new and unbroken.code == 0
    for number in range(tries(2, 1 / 30)):
        hub.reset()
        if number % 2:  # into a repository that holds another model; else into none
            hub.add("ann/small", old)
        commands(*words, kill_after=DRAW.uniform(0, 1.05 * seconds), **how)
        if ("model", "ann/small") in hub.repos:
            left = hub.repo("ann/small").files()
            assert left in (old, new) or list(left) == [".gitattributes"]
        commands.well(*words, **how)
        assert hub.repo("ann/small").files() == new and names(shop) == before


# ---------------------------------------------------------------------- the store


def test_a_store_that_is_begun(tmp_path):
    """Killed before every call that writes: there is no store, or a whole one, and nothing stays beside it."""
    number, file = 0, tmp_path / "users.db"
    while True:
        number += 1
        killed = killed_at(number, lambda: SQLiteStateStore(file).close())
        with SQLiteStateStore(file) as store:
            store.absorb([Event("a", 1)], OLD, advance)
            assert len(store.events("a")) == 1
        assert names(tmp_path) == ["users.db"]
        if not killed:
            break
        file.unlink()
    assert number >= 5


def test_killed_writers(workers, tmp_path):
    """Of the acknowledged clicks none is lost, and none is there twice, however often the writers are killed."""
    kill_writers(workers, tmp_path, tries(5, 1 / 20))


# ---------------------------------------------------------------------- folders


def test_a_killed_export(tmp_path, monkeypatch):
    """Killed before every call that writes, with the graphs of an export that is there: they take long to make."""
    pytest.importorskip("onnxscript")

    def export(folder: Path, seed: int) -> None:
        monkeypatch.setattr(onnx, "_export", lambda graph, file: file.write_text(f"graph {seed} of {file.name}"))
        monkeypatch.setattr(onnx, "_check", lambda graph, file, max_length: 0.0)
        onnx.export_onnx(small_model(seed=seed), GlintRUProcessor(ITEMS), folder, overwrite=True)

    export(tmp_path / "old", 0)
    export(tmp_path / "new", 1)
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    seen, number = [], 0
    while True:
        number += 1
        base = tmp_path / f"kill-{number}"
        if earlier := number % 4:  # every fourth time there is no folder
            shutil.copytree(tmp_path / "old", base / "exported")
            (base / "exported" / "notes.txt").write_text("mine")
        killed = killed_at(number, lambda base=base: export(base / "exported", 1))
        found = content(base / "exported") if (base / "exported").exists() else None
        mine = {"notes.txt": b"mine"} if earlier else {}
        whole = {name: value for name, value in (found or {}).items() if not name.startswith(".onnx.")}
        assert whole in ({**old, **mine} if earlier else {}, {**new, **mine})
        seen.append(whole == {**new, **mine})
        export(base / "exported", 1)
        assert content(base / "exported") == {**new, **mine} and names(base) == [
            "exported",
            *(f"exported/{name}" for name in sorted({**new, **mine})),
        ]
        if not killed:
            break
    assert number > 15 and set(seen) == {True, False}


def test_a_killed_save_of_a_processor(tmp_path):
    old, new = GlintRUProcessor(["tea", "milk"]), GlintRUProcessor(["jam", "bread"])
    new.save_pretrained(tmp_path / "whole")
    folder, number = tmp_path / "folder", 0
    while True:
        number += 1
        old.save_pretrained(folder)
        killed = killed_at(number, lambda: new.save_pretrained(folder))
        assert GlintRUProcessor.from_pretrained(folder).item_ids in (old.item_ids, new.item_ids)
        new.save_pretrained(folder)
        assert names(folder) == names(tmp_path / "whole")
        if not killed:
            break
    assert number >= 4


@pytest.mark.slow
def test_the_command_itself(shop, tmp_path):
    """`glintru train` as everybody starts it, killed while its checkpoints come, goes on to the same weights."""
    words = [sys.executable, "-m", "modeling_glintru", *WORKS["train"].words]
    copy_shop(shop, tmp_path / "shop")
    shutil.rmtree(tmp_path / "shop" / "trained")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=tmp_path / "shop", env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "shop").glob("trained/checkpoints/checkpoint-*/*")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*words, "--resume"], cwd=tmp_path / "shop", env=environment, stdout=subprocess.DEVNULL, check=True)
    whole = copy_shop(shop, tmp_path / "whole")
    subprocess.run([*words, "--overwrite"], cwd=whole, env=environment, stdout=subprocess.DEVNULL, check=True)
    assert content(tmp_path / "shop" / "trained") == content(whole / "trained")
    assert names(tmp_path / "shop") == names(whole)
