"""Both stores keep the same promises; states here are just the list of the items that they hold."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from modeling_glintru.errors import (
    GlintRUError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)
from modeling_glintru.serving.sqlite_store import SQLiteStateStore
from modeling_glintru.serving.store import (
    Absorbed,
    Event,
    MemoryStateStore,
    Pending,
    Record,
    Replacement,
    StoredEvent,
    checked_event,
    checked_id,
)

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


def advance(pending: list[Pending]) -> list[bytes]:
    """The items of a state are a JSON list."""
    assert len({each.record.user for each in pending}) == len(pending)
    held = [json.loads(each.record.state or b"[]") for each in pending]
    return [
        json.dumps(items + [event.item for event in each.events]).encode()
        for items, each in zip(held, pending, strict=True)
    ]


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    store = MemoryStateStore() if request.param == "memory" else SQLiteStateStore(tmp_path / "users.db")
    yield store
    store.close()


def state(store, user, fingerprint=OLD):
    (record,) = store.read([user], fingerprint)
    return None if record.state is None else json.loads(record.state)


def test_absorbing(store):
    assert store.read(["a"], OLD) == [Record("a")]
    assert store.events("a") == [] and store.users() == []
    found = store.absorb([Event("a", 1), Event("b", "x", time=2.5), Event("a", 2)], OLD, advance)
    assert found == [Absorbed(1, False), Absorbed(1, False), Absorbed(2, False)]
    assert store.absorb([Event("a", 3)], OLD, advance) == [Absorbed(3, False)]
    assert store.read(["b", "a", "c"], OLD) == [
        Record("b", 0, 1, 1, b'["x"]'),
        Record("a", 0, 3, 3, b"[1, 2, 3]"),
        Record("c"),
    ]
    assert store.events("b") == [StoredEvent(1, "x", None, 2.5)]
    assert [event.item for event in store.events("a", after=1)] == [2, 3]
    assert store.events("a", after=3) == []
    assert store.absorb([], OLD, advance) == []


def test_ids_keep_their_types(store):
    store.absorb([Event(1, 10), Event("1", "10"), Event("é\0ü", ""), Event("", -(2**63))], OLD, advance)
    assert store.users() == [1, "1", "é\0ü", ""]
    assert [state(store, user) for user in store.users()] == [[10], ["10"], [""], [-(2**63)]]
    assert store.events("1") == [StoredEvent(1, "10")]


def test_the_same_event_twice(store):
    """Within a call and between calls; ids belong to their user, and 1 is not "1"."""
    events = [Event("a", 1, "x"), Event("a", 1, "x"), Event("b", 1, "x"), Event("a", 2, 1), Event("a", 3, "1")]
    found = store.absorb(events, OLD, advance)
    assert found == [Absorbed(1, False), Absorbed(1, True), Absorbed(1, False), Absorbed(2, False), Absorbed(3, False)]
    assert store.absorb([Event("a", 9, "x"), Event("a", 4), Event("a", 9, 1)], OLD, advance) == [
        Absorbed(1, True),
        Absorbed(4, False),
        Absorbed(2, True),
    ]
    assert state(store, "a") == [1, 2, 3, 4] and state(store, "b") == [1]
    assert store.absorb([Event("a", 9, "x")], OLD, pytest.fail) == [Absorbed(1, True)]


def test_all_or_nothing(store):
    store.absorb([Event("a", 1, "x")], OLD, advance)

    def fail(pending):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.absorb([Event("a", 2, "y"), Event("b", 3, "z")], OLD, fail)
    assert store.users() == ["a"] and store.read(["b"], OLD) == [Record("b")]
    assert store.events("a") == [StoredEvent(1, 1, "x")]
    assert store.absorb([Event("a", 2, "y"), Event("b", 3, "z")], NEW, advance)[0] == Absorbed(2, False)


def test_states_of_several_weights(store):
    """Each is caught up from the events that another took in."""
    store.absorb([Event("a", 1), Event("b", 1)], OLD, advance)
    assert store.read(["a"], NEW) == [Record("a", 0, 1, 0, None)]
    assert store.users(behind=OLD) == [] and store.users(behind=NEW) == ["a", "b"]
    store.absorb([Event("a", 2)], NEW, advance)
    assert state(store, "a", NEW) == [1, 2] and state(store, "a", OLD) == [1]
    assert store.users(behind=OLD) == ["a"] and store.users(behind=NEW) == ["b"]
    store.absorb([Event("a", 3)], OLD, advance)
    assert state(store, "a", OLD) == [1, 2, 3]
    store.keep_only(NEW)
    assert state(store, "a", OLD) is None and state(store, "a", NEW) == [1, 2]
    store.absorb([Event("b", 5)], OLD, advance)
    assert state(store, "b", OLD) == [1, 5]


def test_pages_of_users(store):
    names = [f"user-{n * 7 % 10}" for n in range(10)]
    for name in names:
        store.absorb([Event(name, 1)], OLD, advance)
    assert store.users() == names
    assert store.users(limit=4) == names[:4]
    assert store.users(after=names[3], limit=4) == names[4:8]
    assert store.users(after=names[9]) == []


def test_compare_and_set(store):
    store.absorb([Event("a", 1), Event("b", 1)], OLD, advance)
    a, b = store.read(["a", "b"], NEW)
    store.absorb([Event("a", 2)], OLD, advance)  # does not hinder
    assert store.replace([Replacement(a, 1, b"[1]"), Replacement(b, 1, b"[1]")], NEW) == [True, True]
    assert store.replace([Replacement(a, 1, b"[7]")], NEW) == [False]  # somebody wrote it meanwhile
    assert state(store, "a", NEW) == [1]
    assert store.replace([Replacement(Record("nobody"), 0, b"[]")], NEW) == [False]
    assert store.users() == ["a", "b"]
    store.absorb([Event("a", 3)], NEW, advance)
    assert state(store, "a", NEW) == [1, 2, 3]


def test_another_history(store):
    store.absorb([Event("a", 1, "x"), Event("a", 2)], OLD, advance)
    store.absorb([Event("a", 3)], NEW, advance)
    (record,) = store.read(["a"], OLD)
    history = [Event("a", 8, "z"), Event("a", 9)]
    stale = Replacement(Record("a", 0, 2, 2, record.state), 2, b"[8, 9]", history)
    assert store.replace([stale], OLD) == [False]
    assert store.replace([Replacement(record, 0, b"[8, 9]", history)], OLD) == [True]
    assert store.read(["a"], OLD) == [Record("a", 3, 5, 5, b"[8, 9]")]
    assert store.read(["a"], NEW) == [Record("a", 3, 5, 3, None)]
    assert store.events("a") == [StoredEvent(4, 8, "z"), StoredEvent(5, 9)]
    # Ids before are forgotten, those of the history are known, and the other weights start from the new history.
    found = store.absorb([Event("a", 1, "x"), Event("a", 8, "z")], NEW, advance)
    assert found == [Absorbed(6, False), Absorbed(4, True)]
    assert state(store, "a", NEW) == [8, 9, 1]
    # A history for a user without events, and an empty one.
    assert store.replace([Replacement(Record("new"), 0, b"[5]", [Event("new", 5)])], OLD) == [True]
    assert store.read(["new"], OLD) == [Record("new", 0, 1, 1, b"[5]")]
    (record,) = store.read(["new"], OLD)
    assert store.replace([Replacement(record, 0, b"[]", [])], OLD) == [True]
    assert store.read(["new"], OLD) == [Record("new", 1, 1, 1, b"[]")] and store.events("new") == []
    assert store.users(behind=NEW) == []


def test_a_user_without_events_is_behind_nothing(store):
    store.absorb([Event("a", 1), Event("b", 1)], OLD, advance)
    (record,) = store.read(["a"], OLD)
    assert store.replace([Replacement(record, 0, b"[]", [])], OLD) == [True]
    assert store.users(behind=NEW) == ["b"] and store.users() == ["a", "b"]


def test_what_goes_in_and_out_cannot_be_changed():
    """The store in memory hands out what it holds."""
    record = Record("a")
    values = (Event("a", 1), StoredEvent(1, 1), record, Pending(record, []), Absorbed(1, False))
    for value in (*values, Replacement(record, 0, b"")):
        for name in value.__slots__:
            with pytest.raises(FrozenInstanceError):
                setattr(value, name, 7)


def test_threads_lose_nothing(store):
    def work(name):
        for n in range(20):
            store.absorb([Event("shared", n, f"{name}-{n}"), Event(name, n)], OLD, advance)

    threads = [threading.Thread(target=work, args=(f"user-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = state(store, "shared")
    assert sorted(held) == sorted(list(range(20)) * 4)
    assert held == [event.item for event in store.events("shared")]
    assert all(state(store, f"user-{n}") == list(range(20)) for n in range(4))


@pytest.mark.parametrize("wrong", [1.0, None, True, b"a", 2**63, -(2**63) - 1, "\ud800", ["a"]])
def test_ids_of_a_wrong_kind(wrong):
    with pytest.raises(StoreError, match="user"):
        checked_id(wrong, "user")
    with pytest.raises(StoreError, match="item"):
        checked_event(Event("a", wrong))


def test_ids_at_their_limits():
    for value in (2**63 - 1, -(2**63), 0, "", "é", "a"):
        assert checked_id(value, "user") == value and type(checked_id(value, "user")) is type(value)


def test_checked_events():
    event = checked_event(Event(np.int64(3), np.str_("x"), np.int32(5), np.float32(0.5)))
    assert event == Event(3, "x", 5, 0.5)
    assert [type(value) for value in (event.user, event.item, event.event_id, event.time)] == [int, str, int, float]
    for time in (float("nan"), float("inf"), "now", True):
        with pytest.raises(StoreError, match="time of an event"):
            checked_event(Event("a", "b", time=time))


# ---------------------------------------------------------------------- the file


def test_what_is_written_stays(tmp_path):
    with SQLiteStateStore(tmp_path / "users.db") as store:
        store.absorb([Event("a", 1, "x", 3)], OLD, advance)
        mode = store._writer.execute("PRAGMA journal_mode").fetchone(), store._writer.execute("PRAGMA synchronous")
        assert mode[0] == ("wal",) and mode[1].fetchone() == (2,)
    with pytest.raises(StoreError, match="was closed"):
        store.read(["a"], OLD)
    with pytest.raises(StoreError, match="was closed"):
        store.absorb([Event("a", 1)], OLD, advance)
    with SQLiteStateStore(tmp_path / "users.db") as store:
        assert store.read(["a"], OLD) == [Record("a", 0, 1, 1, b"[1]")]
        assert store.events("a") == [StoredEvent(1, 1, "x", 3)]


def test_what_stands_in_the_header(tmp_path):
    """Version and application as SQLite puts them there: files of earlier releases are recognised by them."""
    SQLiteStateStore(tmp_path / "users.db").close()
    header = (tmp_path / "users.db").read_bytes()[:100]
    assert (header[60:64], header[68:72]) == (b"\0\0\0\1", b"GLRU")


def test_reading_writes_nothing(tmp_path):
    """No table is made for weights of which nothing is stored yet."""
    with SQLiteStateStore(tmp_path / "users.db") as store:
        store.absorb([Event("a", 1)], OLD, advance)
        assert store.read(["a"], NEW) == [Record("a", 0, 1, 0, None)]
        assert store.users(behind=NEW) == ["a"] and store.users(behind=OLD) == []
        assert store._state_tables(store._writer) == [f"states_{OLD}"]


def test_files_of_another_kind(tmp_path):
    text, other, bare, later = (tmp_path / name for name in ("text", "other.db", "bare.db", "later.db"))
    text.write_text("not a database, and long enough to have a header" * 20)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    with sqlite3.connect(bare) as connection:
        connection.execute("PRAGMA user_version = 1")  # a file without a table, and yet not an empty one
    SQLiteStateStore(later).close()
    with sqlite3.connect(later) as connection:
        connection.execute("PRAGMA user_version = 9")
    for file, sentence in (
        (text, "is not a store of user states"),
        (other, "is a database, but not a store"),
        (bare, "is a database, but not a store"),
        (later, "is a store of version 9, this package reads version 1"),
        (tmp_path / "missing" / "users.db", "cannot be opened: is its folder there"),
    ):
        with pytest.raises(StoreError, match=sentence):
            SQLiteStateStore(file)


def test_a_damaged_file(tmp_path):
    file = tmp_path / "users.db"
    with SQLiteStateStore(file) as store:
        store.absorb([Event(f"user-{n}", n) for n in range(2000)], OLD, advance)
    pages = bytearray(file.read_bytes())
    pages[8192:] = b"\x55" * len(pages[8192:])
    file.write_bytes(pages)
    with pytest.raises(StoreError, match="is damaged"), SQLiteStateStore(file) as store:
        store.read(["user-7"], OLD)


def test_a_locked_file(tmp_path):
    file = tmp_path / "users.db"
    with SQLiteStateStore(file, timeout=0.05) as store:
        store.absorb([Event("a", 1)], OLD, advance)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match=r"locked by another process .* 0.05 s"):
            store.absorb([Event("a", 2)], OLD, advance)
        assert state(store, "a") == [1]  # readers go on
        other.execute("ROLLBACK")
        other.close()
        assert store.absorb([Event("a", 2)], OLD, advance) == [Absorbed(2, False)]


def test_a_read_only_file(tmp_path):
    with SQLiteStateStore(tmp_path / "users.db") as store:
        store._writer.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreReadOnlyError, match="cannot be written"):
            store.absorb([Event("a", 1)], OLD, advance)
        assert store.users() == []


def test_a_full_disk(tmp_path):
    """What was acknowledged is there, what was refused is not, and there is an end to it."""
    with SQLiteStateStore(tmp_path / "users.db") as store:
        store._writer.execute("PRAGMA max_page_count = 60")
        kept = 0
        with pytest.raises(StoreFullError, match="disk is full"):
            for n in range(1000):
                store.absorb([Event("a", n, f"id-{n}"), Event(n, "x" * 3000)], OLD, advance)
                kept += 1
        assert 5 < kept < 100
        assert state(store, "a") == list(range(kept)) and len(store.users()) == kept + 1
        store._writer.execute("PRAGMA max_page_count = 1000")
        assert store.absorb([Event("a", kept, f"id-{kept}")], OLD, advance) == [Absorbed(kept + 1, False)]


def test_a_fingerprint_is_no_table_name(tmp_path):
    with SQLiteStateStore(tmp_path / "users.db") as store, pytest.raises(StoreError, match="16 hexadecimal digits"):
        store.read(["a"], "x; DROP TABLE users")
    assert issubclass(StoreError, GlintRUError)


def test_a_page_after_nobody(store):
    with pytest.raises(StoreError, match="has no user 'a' to go on"):
        store.users(after="a")
