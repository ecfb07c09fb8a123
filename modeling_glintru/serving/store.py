"""Where the states of users live: the five methods of a store, what goes in and out, and the store in memory.

A store keeps for each user the raw events, numbered 1, 2, … (`position`), and for each set of weights (`fingerprint`)
one state with the position of the last event that it holds. So states can be rebuilt when the weights change, those of
old and new weights stand side by side meanwhile, and one that is behind is caught up from the events.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import StoreError

__all__ = [
    "Absorbed",
    "Advance",
    "Event",
    "MemoryStateStore",
    "Pending",
    "Record",
    "Replacement",
    "StoredEvent",
    "UserStateStore",
    "checked_event",
    "checked_id",
]

RawId = str | int
INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Event:
    """A click as it arrives.

    Args:
        user: Raw id, a string or an integer of 64 bits; 1 and "1" are two users.
        item: Raw id of the item.
        event_id: Names this click among those of its user: the same one delivered again is absorbed once, whatever
            else it says. Without one every delivery counts.
        time: A number, kept as given. States follow the order of arrival, not this.
    """

    user: RawId
    item: RawId
    event_id: RawId | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a user in the store.

    Args:
        position: Its number; positions grow by one and are never used again.
        item, event_id, time: As it arrived.
    """

    position: int
    item: RawId
    event_id: RawId | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a store holds of a user under one fingerprint.

    Args:
        user: Raw id.
        since: The history begins after this position; 0 unless it was replaced.
        last: Position of the newest event, `since` where there is none.
        position: Position of the last event that the state holds; `since` where there is no state.
        state: The bytes of the state, None where there is none.
    """

    user: RawId
    since: int = 0
    last: int = 0
    position: int = 0
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A user whose state has to go on: `record`, and all events after `record.position`, in order."""

    record: Record
    events: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What became of an event: its position, or that of the one with the same id that was there before."""

    position: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Replacement:
    """A state to write in the place of another.

    Args:
        record: What was read; nothing is written where the store holds something else by now.
        position: Position of the last event that the state holds, at most `record.last`; not read with `history`.
        state: Its bytes.
        history: Takes the place of all events of the user, numbered from `record.last` + 1; the states under other
            fingerprints go, and the state holds all of it.
    """

    record: Record
    position: int
    state: bytes
    history: Sequence[Event] | None = None


Advance = Callable[[Sequence[Pending]], Sequence[bytes]]


class UserStateStore(Protocol):
    """Five methods, each atomic, safe among threads, processes and machines as far as the backend reaches.

    All raise `StoreError` where the backend fails; then nothing was written.
    """

    def read(self, users: Sequence[RawId], fingerprint: str) -> list[Record]:
        """One record for each user, an empty one for a user without events."""
        ...

    def absorb(self, events: Sequence[Event], fingerprint: str, advance: Advance) -> list[Absorbed]:
        """Takes events in, in order: all of them, with the states that hold them, or none.

        In one transaction: reads the users' records, leaves out events whose id the user already has, numbers the
        others, gives each user that got some to `advance` with all events that its state lacks (older ones too), and
        writes events, states and positions. When it returns they are as durable as the backend makes them.

        Args:
            events: Checked by `checked_event`.
            fingerprint: Of the weights that `advance` computes with.
            advance: Gives the new state's bytes for each pending user. A backend of optimistic transactions may call
                it again; what it raises ends the transaction.
        """
        ...

    def events(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        """The user's events with positions above `after`, in order."""
        ...

    def replace(self, replacements: Sequence[Replacement], fingerprint: str) -> list[bool]:
        """Compare-and-set: writes each state whose user's record still is the one that was read.

        Compared are `since`, the state's `position` and, with a history, `last`; events that arrived meanwhile do not
        hinder a state.

        Returns:
            For each whether it was written.
        """
        ...

    def users(self, after: RawId | None = None, limit: int = 1000, behind: str | None = None) -> list[RawId]:
        """A page of users in the order of their first event.

        Args:
            after: The last user of the page before.
            limit: Users at most.
            behind: Only users whose state under this fingerprint is missing or lacks events.
        """
        ...

    def close(self) -> None:
        """Lets go of what the store has open."""
        ...


def checked_id(value: Any, what: str) -> RawId:
    """A raw id as plain `str` or `int`.

    Raises:
        StoreError: It is neither, an integer beyond 64 bits, or a text that is no valid Unicode.
    """
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise StoreError(f"{what} {value!r} is not valid Unicode and cannot be stored") from error
        return str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        number = operator.index(value)
        if INT64.min <= number <= INT64.max:
            return number
        raise StoreError(f"{what} {number} does not fit in 64 bits; use a string")
    raise StoreError(f"{what} must be a string or an integer, got {value!r} ({type(value).__name__})")


def checked_event(event: Event) -> Event:
    """The event with ids and time as a store takes them.

    Raises:
        StoreError: An id or the time is of a wrong kind.
    """
    time = event.time
    if time is not None:
        if isinstance(time, bool) or not isinstance(time, (int, float, np.number)) or not math.isfinite(time):
            raise StoreError(f"the time of an event must be a finite number or None, got {time!r}")
        time = time.item() if isinstance(time, np.number) else time
    event_id = None if event.event_id is None else checked_id(event.event_id, "event_id")
    return Event(checked_id(event.user, "user"), checked_id(event.item, "item"), event_id, time)


@dataclass
class _User:
    since: int = 0
    events: list[StoredEvent] = field(default_factory=list)
    positions: dict[RawId, int] = field(default_factory=dict)  # of event ids
    states: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def record(self, user: RawId, fingerprint: str) -> Record:
        position, state = self.states.get(fingerprint, (self.since, None))
        return Record(user, self.since, self.since + len(self.events), position, state)

    def add(self, event: Event) -> StoredEvent:
        stored = StoredEvent(self.since + len(self.events) + 1, event.item, event.event_id, event.time)
        self.events.append(stored)
        if event.event_id is not None:
            self.positions[event.event_id] = stored.position
        return stored


class MemoryStateStore:
    """A store in the memory of this process, for tests and trials: gone with it, whatever `observe` says."""

    def __init__(self) -> None:
        self._users: dict[RawId, _User] = {}
        self._lock = threading.RLock()

    def read(self, users: Sequence[RawId], fingerprint: str) -> list[Record]:
        with self._lock:
            return [self._users.get(user, _User()).record(user, fingerprint) for user in users]

    def absorb(self, events: Sequence[Event], fingerprint: str, advance: Advance) -> list[Absorbed]:
        with self._lock, self._undone_on_error({event.user for event in events}):
            found, touched = [], {}
            for event in events:
                user = self._users.setdefault(event.user, _User())
                before = user.positions.get(event.event_id) if event.event_id is not None else None
                if before is None:
                    touched[event.user] = user
                found.append(Absorbed(before or user.add(event).position, before is not None))
            records = [user.record(raw, fingerprint) for raw, user in touched.items()]
            pending = [Pending(record, self.events(record.user, record.position)) for record in records]
            for record, state in zip(records, advance(pending) if pending else (), strict=True):
                self._users[record.user].states[fingerprint] = (record.last, state)
            return found

    @contextmanager
    def _undone_on_error(self, users: set[RawId]) -> Iterator[None]:
        before = {user: len(self._users[user].events) for user in users if user in self._users}
        try:
            yield
        except BaseException:
            for raw in users:
                if raw not in before:
                    self._users.pop(raw, None)
                    continue
                user = self._users[raw]
                for event in user.events[before[raw] :]:
                    if event.event_id is not None:
                        del user.positions[event.event_id]
                del user.events[before[raw] :]
            raise

    def events(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        with self._lock:
            found = self._users.get(user, _User())
            return found.events[max(0, after - found.since) :]

    def replace(self, replacements: Sequence[Replacement], fingerprint: str) -> list[bool]:
        with self._lock:
            return [self._replace(replacement, fingerprint) for replacement in replacements]

    def _replace(self, new: Replacement, fingerprint: str) -> bool:
        user = self._users.get(new.record.user, _User())
        now = user.record(new.record.user, fingerprint)
        same = (now.since, now.position) == (new.record.since, new.record.position)
        if new.history is None:
            if same and now.last:
                user.states[fingerprint] = (new.position, new.state)
            return same and now.last > 0
        if not same or now.last != new.record.last:
            return False
        self._users.setdefault(new.record.user, user)
        user.since, user.events, user.positions = now.last, [], {}
        for event in new.history:
            user.add(event)
        user.states = {fingerprint: (user.since + len(user.events), new.state)}
        return True

    def users(self, after: RawId | None = None, limit: int = 1000, behind: str | None = None) -> list[RawId]:
        with self._lock:
            everyone = list(self._users)
            if after is not None and after not in self._users:
                raise StoreError(f"the store has no user {after!r} to go on after")
            start = 0 if after is None else everyone.index(after) + 1
            found: list[RawId] = []
            for user in everyone[start:]:
                record = self._users[user].record(user, behind or "")
                if len(found) < limit and (behind is None or record.position < record.last):
                    found.append(user)
            return found

    def keep_only(self, fingerprint: str) -> None:
        """Drops the states under all other fingerprints."""
        with self._lock:
            for user in self._users.values():
                user.states = {name: state for name, state in user.states.items() if name == fingerprint}

    def close(self) -> None:
        """Nothing is open."""
