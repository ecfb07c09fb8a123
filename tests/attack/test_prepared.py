"""A prepared folder with a flipped bit, a lost file or an item out of range is refused before it is used."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.data.prepared import load_prepared
from modeling_glintru.errors import DataError
from modeling_glintru.training.cooccurrence import cooccurrence_embeddings, near_pairs

from ..data.test_prepare import forget_checksums

TRIES = int(os.environ.get("GLINTRU_ATTACK_TRIES", "300"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    prepare(synthetic_interactions(), folder)
    return folder


def put(file: Path, content: bytes) -> None:
    """Another file of this name: the one before may still be mapped into memory."""
    other = file.with_name("other")
    other.write_bytes(content)
    other.replace(file)


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_one_flipped_bit(sound, tmp_path):
    draw, folder = random.Random(0), tmp_path / "prepared"
    shutil.copytree(sound, folder)
    files = files_of(folder)
    weights = [file.stat().st_size ** 0.5 for file in files]
    for _ in range(TRIES):
        (file,) = draw.choices(files, weights)
        content = bytearray(file.read_bytes())
        before, place = bytes(content), draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        put(file, bytes(content))
        try:
            found = load_prepared(folder)
        except DataError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
        else:  # white space of JSON means the same
            assert file.name == "summary.json" and found.summary == load_prepared(sound).summary
        put(file, before)
    load_prepared(folder)


@pytest.mark.parametrize("number", range(8))
def test_a_lost_or_shortened_file(sound, tmp_path, number):
    folder = tmp_path / "prepared"
    shutil.copytree(sound, folder)
    file = [file for file in files_of(folder) if file.name != "summary.json"][number]
    content = file.read_bytes()
    for harmed in (content[:-1], content + b"\n", None):
        if harmed is None:
            file.unlink()
        else:
            put(file, harmed)
        with pytest.raises(DataError, match=r"is not what was written|missing or damaged"):
            load_prepared(folder)


def test_a_large_folder_is_compared_beside_the_work(sound, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_glintru.data.prepared.LARGE", 100)
    folder = tmp_path / "prepared"
    shutil.copytree(sound, folder)
    load_prepared(folder).wait_until_checked()
    state = folder / "dataset" / "train" / "state.json"
    state.write_text(state.read_text() + " ")
    data = load_prepared(folder)
    with pytest.raises(DataError, match=r"state\.json is not what was written"):
        data.wait_until_checked()


def test_no_model_comes_of_damaged_data(glintru, sound, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_glintru.data.prepared.LARGE", 100)
    folder = tmp_path / "prepared"
    shutil.copytree(sound, folder)
    state = folder / "dataset" / "train" / "state.json"
    state.write_text(state.read_text() + " ")
    words = ("--recipe", "demo", "--data", folder, "--set", "num_train_epochs=1", "--quiet")
    result = glintru("train", *words, "--output_dir", tmp_path / "model")
    assert result.exit_code == 2 and "is not what was written" in result.output
    assert not (tmp_path / "model" / "config.json").exists()


# ---------------------------------------------------------------------- folders that somebody else wrote


def rewrite(folder: Path, part: str, column: str, change) -> None:
    """Changes a column of an Arrow file, in a folder without checksums."""
    forget_checksums(folder)
    (file,) = (folder / "dataset" / part).glob("*.arrow")
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
        rows = table.column(column).to_pylist()
    change(rows)
    place = table.column_names.index(column)
    table = table.set_column(place, table.field(place), [pa.array(rows, table.field(place).type)])
    file.unlink()
    with pa.OSFile(str(file), "wb") as target, pa.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("index", [0, -1, 241, 2**31 - 1])
@pytest.mark.parametrize(("part", "column"), [("train", "item_ids"), ("validation", "item_ids"), ("test", "target")])
def test_an_item_out_of_range(sound, tmp_path, part, column, index):
    def change(rows):
        if column == "target":
            rows[3] = index
        else:
            rows[3][0] = index

    folder = tmp_path / "prepared"
    shutil.copytree(sound, folder)
    rewrite(folder, part, column, change)
    message = rf"an item with the index {index}, but the indices of its vocabulary are 1 to 240"
    with pytest.raises(DataError, match=message):
        load_prepared(folder)


def test_random_bytes_in_a_folder_without_checksums(sound, tmp_path):
    """Arrow's own checks and those of the indices: no crash, no index out of range."""
    draw, folder = random.Random(1), tmp_path / "prepared"
    shutil.copytree(sound, folder)
    forget_checksums(folder)
    (file,) = (folder / "dataset" / "train").glob("*.arrow")
    before = file.read_bytes()
    for _ in range(TRIES // 3):
        content = bytearray(before)
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        put(file, bytes(content))
        try:
            data = load_prepared(folder)
        except DataError:
            continue
        assert data.item_counts.shape == (241,) and data.item_counts[0] == 0
    put(file, before)


def test_the_matrix_of_pairs_checks_its_indices(sound):
    data = load_prepared(sound)
    with pytest.raises(DataError, match=r"a history holds an item outside 1…99"):
        near_pairs(data.dataset["train"], 100)


# ---------------------------------------------------------------------- the same bits with any number of threads


def test_the_start_from_co_occurrence_does_not_depend_on_the_threads(sound):
    counts = near_pairs(load_prepared(sound).dataset["train"], 241)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            found.append(cooccurrence_embeddings(counts, 64))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_the_summary_of_an_earlier_version_is_read(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "prepared")
    forget_checksums(tmp_path / "prepared")
    now, before = load_prepared(sound).summary, load_prepared(tmp_path / "prepared").summary
    assert {name: value for name, value in now.items() if name != "checksums"} == before
    assert json.dumps(now)
