"""User states in one SQLite file: no server, shared by the processes of one machine.

The file is in WAL mode with `synchronous=FULL`: a transaction that has returned is on the disk. Tables: `users` (raw
id, `since`, `last`), `events` (user, position, event_id, item, time), and for each fingerprint `states_…` (user,
position, state). Columns of raw ids have no type, so that 1 and "1" stay two ids.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError
from ..whole_files import NO_ROOM, remove_unfinished, unfinished_folder
from .store import Absorbed, Advance, Event, Pending, RawId, Record, Replacement, StoredEvent

__all__ = ["SQLiteStateStore"]

APPLICATION_ID, VERSION = 0x474C5255, 1  # "GLRU" in the file's header, and the version of the tables
SCHEMA = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, user NOT NULL UNIQUE, since INTEGER NOT NULL, last INTEGER NOT NULL)",
    "CREATE TABLE events (user INTEGER NOT NULL, position INTEGER NOT NULL, event_id, item NOT NULL, time, "
    "PRIMARY KEY (user, position)) WITHOUT ROWID",
    "CREATE UNIQUE INDEX event_ids ON events (user, event_id) WHERE event_id IS NOT NULL",
    f"PRAGMA user_version = {VERSION}",
    f"PRAGMA application_id = {APPLICATION_ID}",
)
# What SQLite says, our error, and what a person can do.
ERRORS: tuple[tuple[str, type[StoreError], str], ...] = (
    ("locked", StoreBusyError, "is locked by another process for longer than its timeout of {timeout:g} s; try again"),
    ("busy", StoreBusyError, "is locked by another process for longer than its timeout of {timeout:g} s; try again"),
    ("readonly", StoreReadOnlyError, "cannot be written: the file or its folder is read-only"),
    ("full", StoreFullError, "cannot grow: the disk is full"),
    ("disk I/O error", StoreError, "cannot be read or written ({error}): is the disk full or damaged?"),
    ("malformed", StoreError, "is damaged ({error}); restore a copy"),
    ("not a database", StoreError, "is not a store of user states ({error})"),
    ("unable to open", StoreError, "cannot be opened: is its folder there and writable?"),
)


class SQLiteStateStore:
    """A `UserStateStore` in one file (two more, `-wal` and `-shm`, stand beside it while it is open).

    Any number of threads and of processes of one machine may use it at a time; writers take turns. The file must not
    lie on a network file system. A process that forks opens it after the fork. Each transaction makes sure that the
    file is still the one that was opened: after somebody deleted or replaced it, every call raises `StoreError`.

    Args:
        path: The file, made where it is missing; its folder must be there.
        timeout: Seconds to wait for another writer.

    Raises:
        StoreError: The file is empty, of another kind or version, damaged, or out of reach.
    """

    def __init__(self, path: str | Path, timeout: float = 10.0) -> None:
        self.path = Path(path)
        self._file = self.path.resolve()  # stays right when the process changes its folder
        self._journal = self._file.with_name(f"{self._file.name}-wal")
        self._identities: dict[Path, tuple[int, int]] = {}
        self.timeout = timeout
        self._lock = threading.Lock()  # of the one connection that writes
        self._readers: list[sqlite3.Connection] = []  # at rest; as many as ever read at the same time
        self._tables: set[str] = set()
        self._closed = False
        self._process = os.getpid()
        with self._errors():
            self._find_or_make()
            self._writer = self._connect(self._file)
            try:
                self._check_header()  # reads: from here on nobody else removes the journal
                self._check_same_files()
            except BaseException:
                self._writer.close()
                raise

    def _connect(self, file: Path, mode: str = "rw") -> sqlite3.Connection:
        """A connection; `mode` `"rw"` opens only what is there, `"rwc"` also makes the file."""
        address = f"{file.as_uri()}?mode={mode}"
        connection = sqlite3.connect(address, self.timeout, isolation_level=None, check_same_thread=False, uri=True)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _find_or_make(self) -> None:
        try:
            if self._file.exists():
                remove_unfinished(self._file)
            else:
                self._make()
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StoreFullError(f"{self.path} cannot be made: the disk is full") from error
            raise StoreError(
                f"{self.path} cannot be opened: is its folder there and writable? ({error.strerror})"
            ) from error

    def _make(self) -> None:
        """Writes an empty store beside its place and links it there, so that nobody ever sees a part of one."""
        if self._journal.exists():
            raise StoreError(
                f"{self.path} is gone, but its journal {self._journal.name} is still there: restore the file, or "
                "remove the journal to begin a new store"
            )
        self._file.parent.stat()  # a missing folder is not made
        with unfinished_folder(self._file) as folder:
            connection = self._connect(folder / self._file.name, "rwc")
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN")
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute("COMMIT")
            finally:
                connection.close()
            with suppress(FileExistsError):  # another process was faster
                os.link(folder / self._file.name, self._file)

    def _check_header(self) -> None:
        def header(name: str) -> int:
            return self._writer.execute(f"PRAGMA {name}").fetchone()[0]

        if not header("schema_version") and not self._file.stat().st_size:
            raise StoreError(f"{self.path} is an empty file, not a store of user states: remove it to begin a new one")
        if header("application_id") != APPLICATION_ID:
            raise StoreError(f"{self.path} is a database, but not a store of user states")
        if header("user_version") != VERSION:
            raise StoreError(
                f"{self.path} is a store of version {header('user_version')}, this package reads version {VERSION}"
            )

    def _check_same_files(self) -> None:
        """Makes sure that the file and its journal are still those that this object has open.

        SQLite goes on writing into a file that was deleted, and what it writes there is lost.
        """
        for file in (self._file, self._journal):
            try:
                found = file.stat()
            except OSError:
                if file in self._identities or file == self._file:
                    raise StoreError(f"{file} was deleted or moved while it was in use: restore it") from None
                continue  # the journal begins with the first write
            identity = (found.st_dev, found.st_ino)
            if self._identities.setdefault(file, identity) != identity:
                raise StoreError(f"{file} was replaced while it was in use: close this store, and open the new one")

    # ------------------------------------------------------------------ connections, transactions, errors

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            for words, kind, sentence in ERRORS:
                if words in text:
                    raise kind(f"{self.path} {sentence.format(timeout=self.timeout, error=text)}") from error
            raise StoreError(f"{self.path} cannot be used: {text}") from error
        except UnicodeDecodeError as error:  # of a text in the file, or of one that SQLite's own message quotes
            raise StoreError(f"{self.path} is damaged ({error}); restore a copy") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The writing connection, between BEGIN and COMMIT; nothing is written after an error."""
        with self._lock, self._errors():
            self._check_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            self._check_same_files()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        self._check_open()
        with self._errors():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect(self._file)
            yield connection
            self._readers.append(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path} was closed")
        if os.getpid() != self._process:
            raise StoreError(f"{self.path} was opened before a fork: open it in each process")
        self._check_same_files()

    def _table(self, connection: sqlite3.Connection, fingerprint: str, create: bool = False) -> str | None:
        """The table of a fingerprint's states, None where there is none."""
        if not re.fullmatch("[0-9a-f]{16}", fingerprint):
            raise StoreError(f"a fingerprint is 16 hexadecimal digits, got {fingerprint!r}")
        name = f"states_{fingerprint}"
        if name in self._tables:
            return name
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
            self._tables.add(name)
            return name
        if not create:
            return None
        columns = "user INTEGER PRIMARY KEY, position INTEGER NOT NULL, state BLOB NOT NULL"
        connection.execute(f"CREATE TABLE {name} ({columns})")
        return name  # remembered by the next call: this transaction may not come to its end

    # ------------------------------------------------------------------ the five methods

    def _records(
        self, connection: sqlite3.Connection, users: Sequence[RawId], table: str | None
    ) -> list[tuple[int | None, Record]]:
        """Row number (None for an unknown user) and record of each user."""
        state, join = "NULL, NULL", ""
        if table is not None:
            state, join = "s.position, s.state", f"LEFT JOIN {table} s ON s.user = u.id"
        query = f"SELECT u.id, u.since, u.last, {state} FROM users u {join} WHERE u.user = ?"
        records: list[tuple[int | None, Record]] = []
        for user in users:
            row = connection.execute(query, (user,)).fetchone()
            if row is None:
                records.append((None, Record(user)))
            else:
                number, since, last, position, state = row
                records.append((number, Record(user, since, last, since if position is None else position, state)))
        return records

    def read(self, users: Sequence[RawId], fingerprint: str) -> list[Record]:
        with self._reader() as connection:
            return [record for _, record in self._records(connection, users, self._table(connection, fingerprint))]

    def events(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        with self._reader() as connection:
            row = connection.execute("SELECT id FROM users WHERE user = ?", (user,)).fetchone()
            return [] if row is None else self._events(connection, row[0], after)

    @staticmethod
    def _events(connection: sqlite3.Connection, number: int, after: int) -> list[StoredEvent]:
        query = "SELECT position, item, event_id, time FROM events WHERE user = ? AND position > ? ORDER BY position"
        return [StoredEvent(*row) for row in connection.execute(query, (number, after))]

    def absorb(self, events: Sequence[Event], fingerprint: str, advance: Advance) -> list[Absorbed]:
        with self._transaction() as connection:
            table = self._table(connection, fingerprint, create=True)
            users = list(dict.fromkeys(event.user for event in events))
            records = dict(zip(users, self._records(connection, users, table), strict=True))
            numbers: dict[RawId, int] = {}
            new: dict[RawId, list[StoredEvent]] = {}
            named: dict[RawId, dict[RawId, int]] = {}  # positions of the new events of each user by their ids
            found = []
            for event in events:
                number, record = records[event.user]
                fresh, ids = new.setdefault(event.user, []), named.setdefault(event.user, {})
                before = None
                if event.event_id is not None:
                    before = ids.get(event.event_id) or self._position(connection, number, event.event_id)
                if before is None:
                    if number is None:
                        insert = "INSERT INTO users (user, since, last) VALUES (?, 0, 0)"
                        number = connection.execute(insert, (event.user,)).lastrowid
                        records[event.user] = number, record
                    assert number is not None
                    numbers[event.user] = number
                    stored = StoredEvent(record.last + len(fresh) + 1, event.item, event.event_id, event.time)
                    fresh.append(stored)
                    if event.event_id is not None:
                        ids[event.event_id] = stored.position
                found.append(Absorbed(stored.position if before is None else before, before is not None))
            pending = []
            for user, number in numbers.items():
                record = records[user][1]
                older = self._events(connection, number, record.position) if record.position < record.last else []
                pending.append(Pending(record, [*older, *new[user]]))
            if pending:
                self._write_events(connection, [(numbers[user], new[user]) for user in numbers])
                states = zip(numbers.values(), pending, advance(pending), strict=True)
                connection.executemany(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
                    [(number, each.events[-1].position, state) for number, each, state in states],
                )
            return found

    @staticmethod
    def _position(connection: sqlite3.Connection, number: int | None, event_id: RawId) -> int | None:
        """The position of the user's stored event with this id."""
        if number is None:
            return None
        query = "SELECT position FROM events WHERE user = ? AND event_id = ?"
        row = connection.execute(query, (number, event_id)).fetchone()
        return None if row is None else row[0]

    @staticmethod
    def _write_events(connection: sqlite3.Connection, new: Sequence[tuple[int, Sequence[StoredEvent]]]) -> None:
        rows = [(number, e.position, e.event_id, e.item, e.time) for number, events in new for e in events]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        lasts = [(events[-1].position, number) for number, events in new if events]
        connection.executemany("UPDATE users SET last = ? WHERE id = ?", lasts)

    def replace(self, replacements: Sequence[Replacement], fingerprint: str) -> list[bool]:
        with self._transaction() as connection:
            table = self._table(connection, fingerprint, create=True)
            users = [replacement.record.user for replacement in replacements]
            records = self._records(connection, users, table)
            return [
                self._replace(connection, table, number, now, new)
                for (number, now), new in zip(records, replacements, strict=True)
            ]

    def _replace(
        self, connection: sqlite3.Connection, table: str | None, number: int | None, now: Record, new: Replacement
    ) -> bool:
        same = (now.since, now.position) == (new.record.since, new.record.position)
        position = new.position
        if new.history is not None:
            same = same and now.last == new.record.last
            position = now.last + len(new.history)
        if not same or (number is None and new.history is None):
            return False
        if new.history is not None:
            if number is None:
                insert = "INSERT INTO users (user, since, last) VALUES (?, 0, 0)"
                number = connection.execute(insert, (now.user,)).lastrowid
            assert number is not None
            connection.execute("DELETE FROM events WHERE user = ?", (number,))
            connection.execute("UPDATE users SET since = last WHERE id = ?", (number,))
            for other in self._state_tables(connection):
                connection.execute(f"DELETE FROM {other} WHERE user = ?", (number,))
            stored = [
                StoredEvent(place, event.item, event.event_id, event.time)
                for place, event in enumerate(new.history, start=now.last + 1)
            ]
            self._write_events(connection, [(number, stored)])
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", (number, position, new.state))
        return True

    def users(self, after: RawId | None = None, limit: int = 1000, behind: str | None = None) -> list[RawId]:
        with self._reader() as connection:
            start = 0
            if after is not None:
                row = connection.execute("SELECT id FROM users WHERE user = ?", (after,)).fetchone()
                if row is None:
                    raise StoreError(f"{self.path} has no user {after!r} to go on after")
                start = row[0]
            table = None if behind is None else self._table(connection, behind)
            join, where = "", "u.id > ?"
            if table is not None:
                join = f"LEFT JOIN {table} s ON s.user = u.id"
                where += " AND COALESCE(s.position, u.since) < u.last"
            elif behind is not None:
                where += " AND u.since < u.last"
            query = f"SELECT u.user FROM users u {join} WHERE {where} ORDER BY u.id LIMIT ?"
            return [user for (user,) in connection.execute(query, (start, limit))]

    # ------------------------------------------------------------------ care

    @staticmethod
    def _state_tables(connection: sqlite3.Connection) -> list[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'states_*'"
        return [name for (name,) in connection.execute(query)]

    def keep_only(self, fingerprint: str) -> None:
        """Drops the states under all other fingerprints; later states take their room in the file.

        A process that still serves from one of them goes on, and computes its users' states again from their events.
        """
        with self._transaction() as connection:
            for table in self._state_tables(connection):
                if table != f"states_{fingerprint}":
                    connection.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        """Closes the file; later calls raise `StoreError`."""
        with self._lock, self._errors():
            self._closed = True
            while self._readers:
                self._readers.pop().close()
            self._writer.close()

    def __enter__(self) -> SQLiteStateStore:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
