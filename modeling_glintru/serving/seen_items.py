"""What users have already seen."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from .advancing import StateAdvancer
from .store import RawId, Record, UserStateStore

__all__ = ["SeenItems"]


class SeenItems:
    """The items of users' histories, read from the store once and then kept up to date.

    Args:
        store: Has the events.
        advancer: Knows the items' indices.
        capacity: Users at most; those asked for longest ago go first.
    """

    def __init__(self, store: UserStateStore, advancer: StateAdvancer, capacity: int) -> None:
        self._store, self._advancer, self._capacity = store, advancer, capacity
        self._lock = threading.Lock()
        self._users: OrderedDict[RawId, tuple[int, int, np.ndarray]] = OrderedDict()  # since, position, indices

    def of(self, record: Record) -> np.ndarray:
        """Indices (int64, each once) of the known items among the user's events."""
        if record.last == record.since:
            return np.zeros(0, np.int64)
        with self._lock:
            since, position, seen = self._users.get(record.user, (-1, 0, np.zeros(0, np.int64)))
        if since != record.since:  # not here yet, or the history was replaced
            since, position, seen = record.since, record.since, seen[:0]
        if position < record.last:
            events = self._store.events(record.user, position)
            new = self._advancer.known_indices([event.item for event in events])
            seen = np.union1d(seen, new)
            position = events[-1].position if events else position
        with self._lock:
            self._users[record.user] = since, position, seen
            self._users.move_to_end(record.user)
            while len(self._users) > self._capacity:
                self._users.popitem(last=False)
        return seen
