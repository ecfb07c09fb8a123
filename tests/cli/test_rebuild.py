"""`glintru rebuild`: the states of a store under new weights."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from modeling_glintru import GlintRUProcessor
from modeling_glintru.cli import app
from modeling_glintru.serving import SQLiteStateStore, StreamingRecommender

from ..model.helpers import small_model

ITEMS = [f"item-{number}" for number in range(1, 21)]


@pytest.fixture
def folders(tmp_path):
    """Two models of the same items, and a store of the first."""
    for name, size in (("old", 16), ("new", 32)):
        small_model(vocab_size=21, hidden_size=size).save_pretrained(tmp_path / name)
        GlintRUProcessor(ITEMS).save_pretrained(tmp_path / name)
    with StreamingRecommender.from_pretrained(tmp_path / "old", tmp_path / "users.db") as recommender:
        recommender.observe_many([(user, item) for user in range(5) for item in ITEMS[user : user + 3]])
    return tmp_path


def rebuild(folders, *options):
    command = ["rebuild", str(folders / "new"), "--store", str(folders / "users.db"), "--quiet", *options]
    return CliRunner().invoke(app, command)


def test_all_users_under_the_new_weights(folders):
    result = rebuild(folders)
    assert result.exit_code == 0 and "Rebuilt 5 users from 15 events; 0 were written meanwhile" in result.output
    for name in ("new", "old"):  # both serve
        with StreamingRecommender.from_pretrained(folders / name, folders / "users.db") as recommender:
            assert len(recommender.recommend(3, top_k=2).items) == 2
    assert "Rebuilt 0 users" in rebuild(folders, "--drop_old").output
    with SQLiteStateStore(folders / "users.db") as store, store._reader() as connection:
        tables = store._state_tables(connection)
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
    assert sorted(counts) == [0, 5]


def test_the_device_of_a_rebuild(folders):
    refused = rebuild(folders, "--device", "cuda:99")
    assert refused.exit_code == 2 and "there is no device 'cuda:99' to compute on" in refused.stderr
    assert "Rebuilt 5 users" in rebuild(folders, "--device", "cpu").output


def test_a_store_that_is_not_there(folders):
    (folders / "users.db").unlink()
    result = rebuild(folders)
    assert result.exit_code == 2 and "there is no store" in result.stderr
    assert not (folders / "users.db").exists()
