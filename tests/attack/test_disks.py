"""A full or read-only disk ends in one sentence; what was there is untouched, and nothing half-written stays."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from modeling_glintru.errors import StoreError, StoreFullError
from modeling_glintru.serving import SQLiteStateStore, StreamingRecommender

from ..hub_server import ANN
from .conftest import tries
from .shop import WORKS, Result, content, copy_shop, names

DRAW = random.Random(0)
MEGABYTE = 2**20
FULL = r"glintru: \S+ ?(\S+ )?cannot .+(the disk is full|No space left on device|File too large|is the disk full)"


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small file system of its own."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "glintru-attack", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # weights may still be mapped into memory


def attack(commands, shop, whole: Result, folder, name: str, obstacles) -> None:
    """Runs a command of the shop in `folder` with each obstacle; it then runs once more, without any.

    Args:
        whole: What the command leaves without an obstacle.
        obstacles: Context managers that give how the command is run.
    """
    work = WORKS[name]
    again = (*work.words, *work.again)
    refused = set()
    for obstacle in obstacles:
        copy_shop(shop, folder)
        old, before = content(folder / work.output), names(folder)
        with obstacle as how:
            ended = commands(*again, cwd=folder, **how)
        found = content(folder / work.output)
        if ended.code == 0:
            assert found == whole.content
            continue
        refused.add(ended.sentence())
        resumed = name == "train" and (folder / work.output / "checkpoints").exists()
        assert found == old if name != "rebuild" else all(found[table] == old[table] for table in old)
        assert names(folder) == before or resumed, ended
        commands.well(*work.words, *(("--resume",) if resumed else work.again), cwd=folder)
        assert content(folder / work.output) == whole.content and names(folder) == whole.names
    assert refused and all(re.search(FULL, sentence) for sentence in refused), refused


@contextmanager
def filled(folder: Path, left: int):
    """Writes a file that leaves so many bytes free."""
    status = os.statvfs(folder)
    file = folder / "ballast"
    file.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left)))
    try:
        yield {}
    finally:
        file.unlink()


@pytest.mark.parametrize("name", WORKS)
def test_a_full_disk(commands, shop, unbroken, disk, name):
    sizes = [0, *(DRAW.randrange(2 * MEGABYTE >> DRAW.randrange(10)) for _ in range(tries(1, 1 / 40)))]
    attack(commands, shop, unbroken(name), disk / "shop", name, [filled(disk, size) for size in sizes])


@pytest.mark.parametrize("name", WORKS)
def test_files_that_may_not_grow(commands, shop, unbroken, tmp_path, name):
    """The limit of a process on the size of a file, its own sentence included, which needs no disk of its own."""
    sizes = [600, *(600 + DRAW.randrange(100_000 >> DRAW.randrange(10)) for _ in range(tries(1, 1 / 40)))]
    attack(commands, shop, unbroken(name), tmp_path / "shop", name, [nullcontext({"largest": size}) for size in sizes])


@pytest.mark.parametrize("name", WORKS)
def test_a_read_only_disk(commands, shop, disk, name):
    work, folder = WORKS[name], copy_shop(shop, disk / "shop")
    old, before = content(folder / work.output), names(folder)
    with read_only(disk):
        ended = commands(*work.words, *work.again, cwd=folder)
    assert re.search("ead-only|writable", ended.sentence())
    assert content(folder / work.output) == old and names(folder) == before


@contextmanager
def read_only(disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def test_a_push_from_a_read_only_disk(commands, shop, disk, hub):
    """It writes nothing beside the model."""
    folder = copy_shop(shop, disk / "shop")
    with read_only(disk):
        commands.well("push", "model", "ann/small", cwd=folder, environment={"HF_TOKEN": ANN})
    assert "model.safetensors" in hub.repo("ann/small").files()


def test_clicks_on_a_full_disk(shop, disk):
    """A click is acknowledged or refused in one sentence; of the acknowledged ones none is lost."""
    folder = copy_shop(shop, disk / "shop")
    acknowledged, refused = [], 0
    for size in [0, *(DRAW.randrange(300_000) for _ in range(tries(3, 1 / 40)))]:
        with (
            StreamingRecommender.from_pretrained(folder / "model", folder / "users.db") as recommender,
            filled(disk, size),
        ):
            before = recommender.store.events("new")
            assert [event.event_id for event in before] == acknowledged
            items = recommender.processor.item_ids
            for number in range(300):
                try:
                    recommender.observe("new", items[number % len(items)], f"{size} {number}")
                except StoreError as error:
                    assert "\n" not in str(error)
                    refused += 1
                    break
                acknowledged.append(f"{size} {number}")
    assert refused and acknowledged
    with SQLiteStateStore(folder / "users.db") as store:
        assert [event.event_id for event in store.events("new")] == acknowledged
    (folder / "users.db").unlink()
    with filled(disk, 0), pytest.raises(StoreFullError, match=r"users\.db .* the disk is full"):
        SQLiteStateStore(folder / "users.db")
    assert not list(folder.glob("*users.db*"))
