"""What is computed from a user's events in a store: the state after them, and the items that the user has seen."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from ..errors import GlintRUError, StateError
from ..models.processing_glintru import GlintRUProcessor, VocabularyError
from ..models.state_glintru import GlintRUState, pack_states, state_kind, unpack_states
from .step import AtTime, Step, rows_of_state, state_of_rows
from .store import Pending, RawId, Record, UserStateStore

__all__ = ["STATE_DTYPES", "SeenItems", "StateAdvancer"]

STATE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MOST_CLICKS = 16  # events of one user that are absorbed one by one; more go through the model in one pass
CHUNK = 512  # columns of such a pass: a history of any length takes the memory of one chunk
TOKENS = 16_384  # rows times columns of a chunk


class StateAdvancer:
    """Computes states; calls from several threads take turns.

    Args:
        model: The recommender, on its device.
        processor: Its vocabulary; events with other items change no state.
        step: The fast path of one click, of the same weights.
        dtype: Of the stored numbers: `"float32"`, `"float16"` or `"bfloat16"`; states of each of them can be read.

    Raises:
        GlintRUError: Another dtype.
    """

    def __init__(self, model: Any, processor: GlintRUProcessor, step: Step, dtype: str = "float32") -> None:
        if dtype not in STATE_DTYPES:
            raise GlintRUError(f"dtype must be one of {', '.join(STATE_DTYPES)}, got {dtype!r}")
        self.model, self.processor, self.step = model, processor, step
        self.dtype = STATE_DTYPES[dtype]
        self._kind = state_kind(step.layout, torch.float32, step.fingerprint)
        self._at_time = None if getattr(model, "time_gaps", None) is None else AtTime(model.time_gaps)
        self._lock = threading.Lock()

    def __call__(self, pending: Sequence[Pending]) -> list[bytes]:
        """The bytes of each user's state after its events.

        Raises:
            StateError: A stored state is damaged or of another model.
            GlintRUError: A number does not fit the dtype.
        """
        return self.encode(*self.advance(pending))

    def encode(self, rows: np.ndarray, counts: np.ndarray) -> list[bytes]:
        """What a store keeps of rows; errors as above."""
        if self.dtype == torch.float32:
            return pack_states(self._kind, counts.tolist(), rows)
        return state_of_rows(self.step.layout, rows, counts, self.step.fingerprint).to(dtype=self.dtype).to_bytes()

    def advance(self, pending: Sequence[Pending]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, row_size) float32 and counts (n,) int64 after the events of each user."""
        rows, counts = self._decode([each.record for each in pending])
        if not any(each.events for each in pending):
            return rows, counts
        items = self._known(pending)
        with self._lock:
            longest = [n for n, ids in enumerate(items) if len(ids) > MOST_CLICKS]
            if longest:
                self._pass(rows, counts, items, longest)
            self._clicks(rows, counts, items, [n for n, ids in enumerate(items) if 0 < len(ids) <= MOST_CLICKS])
        return rows, counts + [len(ids) for ids in items]

    def queries(self, rows: np.ndarray, time_gaps: np.ndarray | None = None) -> np.ndarray:
        """See `Step.queries`; with a model for it, `time_gaps` (n,) are the times from each user's last item to now."""
        if time_gaps is not None and self._at_time is not None:
            size, rows = self.step.layout.hidden_size, rows.copy()
            rows[:, -size:] = self._at_time(rows[:, -size:], time_gaps)
        with self._lock:
            return self.step.queries(rows)

    def known_indices(self, items: Sequence[RawId]) -> np.ndarray:
        """Indices of the items that the vocabulary holds, in order; the others are left out."""
        indices = self._indices(items)
        return indices[indices > 0]

    def _indices(self, items: Sequence[RawId]) -> np.ndarray:
        """The index of each item, 0 where it is unknown."""
        try:
            return self.processor.encode_ids(list(items), "drop")
        except VocabularyError:  # ids of another type, from the time of another model: unknown like others
            known = (self.processor.index_of(item) if item in self.processor else 0 for item in items)
            return np.fromiter(known, np.int64)

    def _known(self, pending: Sequence[Pending]) -> list[np.ndarray]:
        """For each user the indices of the known items of the events."""
        indices = self._indices([event.item for each in pending for event in each.events])
        ends = list(accumulate(len(each.events) for each in pending))
        parts = [indices[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return parts if indices.all() else [part[part > 0] for part in parts]

    # ------------------------------------------------------------------ bytes and rows

    def _decode(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        rows, counts = self.step.empty(len(records)), np.zeros(len(records), np.int64)
        stored = [n for n, record in enumerate(records) if record.state is not None]
        if stored:
            blobs = [records[n].state or b"" for n in stored]
            try:
                rows[stored], counts[stored] = self._decode_batch(blobs)
            except GlintRUError:  # one of them, or they are of several dtypes
                for n in stored:
                    rows[n], counts[n] = self._decode_one(records[n])
        return rows, counts

    def _decode_one(self, record: Record) -> tuple[np.ndarray, int]:
        try:
            (row,), (count,) = self._decode_batch([record.state or b""])
        except GlintRUError as error:
            raise StateError(
                f"the stored state of user {record.user!r} cannot be used: {error}; "
                "rebuild(user) computes it again from the user's events"
            ) from error
        return row, int(count)

    def _decode_batch(self, blobs: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        kind, found, numbers = unpack_states(blobs)
        if kind == self._kind:  # the usual case, without tensors
            if len(numbers) != 4 * self.step.row_size * len(blobs):
                raise GlintRUError("a state has another number of numbers than its model's states have")
            rows, counts = np.frombuffer(numbers, np.float32).reshape(len(blobs), -1), np.array(found, np.int64)
        else:
            state = GlintRUState.from_bytes(blobs)
            state.check(self.step.layout, self.step.fingerprint, len(blobs), state.device)
            rows, counts = rows_of_state(state), state.count.numpy()
        if not np.isfinite(rows).all():
            raise GlintRUError("it holds numbers that are not finite")
        return rows, counts

    # ------------------------------------------------------------------ items into rows, in place

    def _clicks(self, rows: np.ndarray, counts: np.ndarray, items: list[np.ndarray], users: list[int]) -> None:
        """One step for the n-th event of every user that has one."""
        place = 0
        while users:
            ids = np.array([items[n][place] for n in users], np.int64)
            rows[users] = self.step.advance(rows[users], counts[users] + place, ids)
            place += 1
            users = [n for n in users if len(items[n]) > place]

    @torch.inference_mode()
    def _pass(self, rows: np.ndarray, counts: np.ndarray, items: list[np.ndarray], users: list[int]) -> None:
        """Passes of the model over users of like length."""
        users = sorted(users, key=lambda n: len(items[n]))
        while users:
            width = min(CHUNK, len(items[users[-1]]))
            batch, users = users[-max(1, TOKENS // width) :], users[: -max(1, TOKENS // width)]
            state = None
            if counts[batch].any():
                layout, fingerprint = self.step.layout, self.step.fingerprint
                state = state_of_rows(layout, rows[batch], counts[batch], fingerprint, self.model.device)
            for start in range(0, len(items[batch[-1]]), width):
                chunk = np.zeros((len(batch), width), np.int64)
                for row, n in zip(chunk, batch, strict=True):
                    part = items[n][start : start + width]
                    row[: len(part)] = part
                ids = torch.from_numpy(chunk).to(self.model.device)
                state = self.model.model(ids, state=state, use_cache=True).state
            assert state is not None
            rows[batch] = rows_of_state(state)


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
