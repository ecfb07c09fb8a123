"""A store whose file is taken away, replaced, empty or made twice never acknowledges an event that it lost."""

from __future__ import annotations

import errno
import os
import shutil
import threading

import pytest

from modeling_glintru import GlintRUProcessor
from modeling_glintru.errors import StoreError, StoreFullError
from modeling_glintru.serving import StreamingRecommender
from modeling_glintru.serving.sqlite_store import SQLiteStateStore
from modeling_glintru.serving.store import Absorbed, Event, MemoryStateStore

from ..model.helpers import small_model
from ..serving.test_store import OLD, advance

ITEMS = [f"item-{number:02d}" for number in range(30)]


@pytest.mark.parametrize("name", ["users.db", "users.db-wal"])
@pytest.mark.parametrize("harm", ["deleted", "moved", "replaced"])
def test_a_file_that_is_gone_acknowledges_nothing(tmp_path, name, harm):
    file = tmp_path / name
    store = SQLiteStateStore(tmp_path / "users.db")
    store.absorb([Event("a", 1)], OLD, advance)
    if harm == "deleted":
        file.unlink()
    elif harm == "moved":
        file.rename(tmp_path / "elsewhere")
    else:
        shutil.copy(file, tmp_path / "copy")
        (tmp_path / "copy").replace(file)
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{name} was .* while it was in use"):
            store.absorb([Event("a", 2)], OLD, advance)
        with pytest.raises(StoreError, match=f"{name} was .* while it was in use"):
            store.read(["a"], OLD)
    store.close()


def test_a_file_that_goes_during_a_transaction_is_not_acknowledged(tmp_path):
    def advance_slowly(pending):
        (tmp_path / "users.db").unlink()
        return advance(pending)

    store = SQLiteStateStore(tmp_path / "users.db")
    with pytest.raises(StoreError, match="was deleted"):
        store.absorb([Event("a", 1)], OLD, advance_slowly)
    store.close()


def test_a_file_that_goes_while_it_is_opened_is_missed(tmp_path, monkeypatch):
    SQLiteStateStore(tmp_path / "users.db").close()
    monkeypatch.setattr(SQLiteStateStore, "_check_header", lambda store: (tmp_path / "users.db").unlink())
    with pytest.raises(StoreError, match="was deleted"):
        SQLiteStateStore(tmp_path / "users.db")


def test_a_folder_in_which_no_store_can_be_made(tmp_path, monkeypatch):
    """A file system without hard links: one sentence, and nothing is left behind."""

    def link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match=r"users\.db cannot be opened: .*Operation not permitted"):
        SQLiteStateStore(tmp_path / "users.db")
    assert os.listdir(tmp_path) == []


def test_a_recommender_acknowledges_nothing_after_it(tmp_path):
    with StreamingRecommender(small_model(), GlintRUProcessor(ITEMS), tmp_path / "users.db") as recommender:
        recommender.observe("a", ITEMS[0])
        (tmp_path / "users.db").unlink()
        with pytest.raises(StoreError, match="was deleted"):
            recommender.observe("a", ITEMS[1])
        recommender.observe("a", ITEMS[1], durable=False)
        with pytest.raises(StoreError, match="was deleted"):
            recommender.flush()


def test_another_folder_of_the_process_is_no_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with SQLiteStateStore("users.db") as store:
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.absorb([Event("a", 1)], OLD, advance)
        readers = [threading.Thread(target=store.read, args=(["a"], OLD)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert len(store.events("a")) == 1
    assert os.listdir(tmp_path / "elsewhere") == []


def test_other_users_of_the_file_come_and_go(tmp_path):
    """The journal is removed by the last one who closes the file, and by nobody before."""
    first = SQLiteStateStore(tmp_path / "users.db")
    second = SQLiteStateStore(tmp_path / "users.db")
    first.absorb([Event("a", 1)], OLD, advance)
    first.close()
    second.absorb([Event("a", 2)], OLD, advance)
    third = SQLiteStateStore(tmp_path / "users.db")
    second.close()
    assert third.absorb([Event("a", 3)], OLD, advance) == [Absorbed(3, False)]
    third.close()


def test_an_empty_file_is_no_new_store(tmp_path):
    (tmp_path / "users.db").touch()
    with pytest.raises(StoreError, match="is an empty file"):
        SQLiteStateStore(tmp_path / "users.db")
    assert (tmp_path / "users.db").stat().st_size == 0


def test_a_file_that_went_without_its_journal_is_no_new_store(tmp_path):
    store = SQLiteStateStore(tmp_path / "users.db")
    store.absorb([Event("a", 1)], OLD, advance)
    (tmp_path / "users.db").unlink()
    with pytest.raises(StoreError, match=r"is gone, but its journal users\.db-wal is still there"):
        SQLiteStateStore(tmp_path / "users.db")
    store.close()


def test_many_make_the_same_store_at_once(tmp_path):
    barrier, errors = threading.Barrier(8), []

    def start(number: int) -> None:
        barrier.wait()
        try:
            with SQLiteStateStore(tmp_path / "users.db") as store:
                store.absorb([Event(f"user-{number}", number)], OLD, advance)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with SQLiteStateStore(tmp_path / "users.db") as store:
        assert sorted(store.users()) == [f"user-{number}" for number in range(8)]
    assert os.listdir(tmp_path) == ["users.db"]


# ---------------------------------------------------------------------- many events of one user


class CountedId(str):
    """An id that counts how often it is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedId.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("make", [MemoryStateStore, None], ids=["memory", "sqlite"])
def test_the_events_of_one_user_are_not_compared_with_each_other(tmp_path, make):
    store = make() if make else SQLiteStateStore(tmp_path / "users.db")
    events = [Event("a", number, CountedId(f"event-{number}")) for number in range(2000)]
    CountedId.comparisons = 0
    found = store.absorb([*events, *events[:5]], OLD, advance)
    assert CountedId.comparisons < 4 * len(events)
    assert [each.position for each in found] == [*range(1, 2001), *range(1, 6)]
    assert [each.duplicate for each in found] == [False] * 2000 + [True] * 5
    store.close()


def test_many_events_are_written_in_transactions_of_bounded_size(tmp_path):
    sizes = []
    store = SQLiteStateStore(tmp_path / "users.db")
    absorb = store.absorb
    store.absorb = lambda events, *rest: sizes.append(len(events)) or absorb(events, *rest)
    with StreamingRecommender(small_model(), GlintRUProcessor(ITEMS), store) as recommender:
        events = [("a", ITEMS[number % 30], f"event-{number}") for number in range(2500)]
        observed = recommender.observe_many(events)
        assert sizes == [1024, 1024, 452]
        assert [each.position for each in observed] == list(range(1, 2501))
        again = recommender.observe_many(events)
        assert all(each.duplicate for each in again) and [each.position for each in again] == list(range(1, 2501))
    store.close()


def test_the_message_says_how_many_events_are_written(tmp_path):
    store = SQLiteStateStore(tmp_path / "users.db")
    absorb, calls = store.absorb, []

    def fill(events, *rest):
        calls.append(len(events))
        if len(calls) == 2:
            raise StoreFullError("the disk is full")
        return absorb(events, *rest)

    store.absorb = fill
    with StreamingRecommender(small_model(), GlintRUProcessor(ITEMS), store) as recommender:
        events = [("a", ITEMS[number % 30], f"event-{number}") for number in range(2500)]
        with pytest.raises(StoreFullError, match=r"the first 1,024 of these 2,500 events are written"):
            recommender.observe_many(events)
        assert len(store.events("a")) == 1024 and calls == [1024, 1024]
        assert [each.duplicate for each in recommender.observe_many(events)] == [True] * 1024 + [False] * 1476
    store.close()
