"""`StreamingRecommender`: a recommendation after every click, from states that a store keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..errors import GlintRUError, StateError, StoreError
from ..machine import pick_device
from ..models.item_sets import ItemFilter, ItemSet
from ..models.loading import load_model_folder
from ..models.pipeline_glintru import checked_gaps, leaves_out_seen
from ..models.processing_glintru import GlintRUProcessor
from .group_commit import MOST_EVENTS, GroupCommit
from .recommender import Recommendation
from .sqlite_store import SQLiteStateStore
from .step import Step, make_step
from .store import (
    Absorbed,
    Event,
    MemoryStateStore,
    Pending,
    RawId,
    Record,
    Replacement,
    UserStateStore,
    checked_event,
    checked_id,
)
from .top_k import ExactIndex, check_top_k, takes_k
from .user_states import SeenItems, StateAdvancer

__all__ = ["Observed", "RebuildReport", "Rebuilt", "StreamingRecommender", "rebuild_all"]

ATTEMPTS = 5  # of a rebuild that clicks of the same user overtake


@dataclass(frozen=True, slots=True)
class Observed:
    """What became of a click.

    Args:
        known: Whether the model knows the item. An unknown one is kept among the raw events, for a later model, and
            changes no recommendation.
        duplicate: Whether an event of the user with this id was there before; nothing was absorbed then. None where
            the caller did not wait.
        position: The event's number among those of the user; None where the caller did not wait.
        durable: Whether it was written when the call returned.
    """

    known: bool
    duplicate: bool | None = None
    position: int | None = None
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuilt state holds: how many events, and how many of them with items that the model does not know."""

    num_events: int
    num_unknown_items: int


class StreamingRecommender:
    """Takes clicks in and recommends after each, at a cost that does not depend on the length of the history.

    A state is that of the user's whole history, not of its newest `max_length` items only. Threads may share one
    object; processes may share one store file, each with its own object, made after a fork.

    Args:
        model: A GLINT-RU recommender. Its weights must not change afterwards.
        processor: Its vocabulary.
        store: A `UserStateStore`, the path of an SQLite file (made where it is missing, closed with this object), or
            None: the memory of this process.
        dtype: Of stored numbers, `"float32"`, `"float16"` or `"bfloat16"`.
        item_counts: How popular items are, for users of whom no item is known: (vocab_size,) numbers as
            `PreparedData.item_counts`, or a mapping from raw id to number. The training counts of the processor by
            default; where a folder has none, such users get the items in the order of the vocabulary.
        rebuild_on_demand: Whether to take a store whose states are of other weights, and compute each user's state from
            the events when the user comes, each time until a click writes it. Otherwise `rebuild_all` comes first.
        cache_users: Users whose seen items are kept in memory.
        device: Where whole histories are computed, for `rebuild_all` and for users who are far behind: any name that
            `pick_device` takes. Where the model is by default. Single clicks are computed where the model is when it
            comes here, best on the CPU, and states are stored in the same form whatever the device.
        step, index: Other implementations of one click and of the top k, by default the fastest of this machine and
            the exact ones.

    Raises:
        StoreError: The store cannot be opened.
        StateError: Its states are of other weights, and `rebuild_on_demand` is off.
        GlintRUError: The model keeps no state, or does not fit the processor; an option is out of range.

    Example:
        >>> with StreamingRecommender.from_pretrained("outputs/ml-100k", store="users.db") as recommender:
        ...     recommender.observe("anna", 50)
        ...     recommender.recommend("anna", top_k=10).items
    """

    def __init__(
        self,
        model: Any,
        processor: GlintRUProcessor,
        store: UserStateStore | str | Path | None = None,
        *,
        dtype: str = "float32",
        item_counts: np.ndarray | Mapping[Any, float] | None = None,
        rebuild_on_demand: bool = False,
        cache_users: int = 10_000,
        device: str | torch.device | None = None,
        step: Step | None = None,
        index: Any = None,
    ) -> None:
        if processor.vocab_size != model.config.vocab_size:
            raise GlintRUError(
                f"the processor has {len(processor)} items, but the model is for {model.config.vocab_size - 1}"
            )
        self.model, self.processor = model, processor
        self.step = make_step(model) if step is None else step
        self.index = ExactIndex(model.item_vectors().detach().float().cpu().numpy()) if index is None else index
        self.advancer = StateAdvancer(model, processor, self.step, dtype)
        if device is not None:
            self.model.to(pick_device(device))  # the step has copied the weights, or is the model itself
        self._cold_order = None if item_counts is None else self._order(item_counts)
        self._owns_store = store is None or isinstance(store, (str, Path))
        if store is None:
            store = MemoryStateStore()
        self.store: UserStateStore = SQLiteStateStore(store) if isinstance(store, (str, Path)) else store
        try:
            if not rebuild_on_demand:
                self._refuse_other_weights()
        except BaseException:
            self._close_store()
            raise
        self._seen = SeenItems(self.store, self.advancer, cache_users)
        self._writer = GroupCommit(lambda events: self.store.absorb(events, self.step.fingerprint, self.advancer))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        store: UserStateStore | str | Path | None = None,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> StreamingRecommender:
        """From a model folder or Hub repository, see `load_model_folder`; other options as the constructor's."""
        loaded = load_model_folder(name_or_path, revision=revision, trust_remote_code=trust_remote_code)
        return cls(*loaded, store=store, **options)

    # ------------------------------------------------------------------ clicks

    def observe(
        self,
        user: RawId,
        item: RawId,
        event_id: RawId | None = None,
        time: float | None = None,
        *,
        durable: bool = True,
        unknown_items: str | None = None,
    ) -> Observed:
        """Takes one click in.

        Args:
            user: Raw id, a string or an integer; 1 and "1" are two users.
            item: Raw id of the item.
            event_id: Where events may be delivered twice: names this one among those of its user.
            time: Kept with the raw event; states follow the order of arrival.
            durable: True returns when the event and the state that holds it are written to the store, for SQLite: on
                the disk. Clicks of several threads share a transaction. False returns at once: the click is in the
                memory of this process, `recommend` may not see it for some milliseconds, it is lost where the process
                dies before it is written, and an error of writing it comes out of the next `flush` or `close`.
            unknown_items: `"drop"` keeps an unknown item's event and says so in the answer, `"error"` refuses it; the
                processor's own policy by default.

        Raises:
            UnknownItemError: The model does not know the item and the policy is `"error"`; nothing was stored.
            GlintRUError: The id's type is not the vocabulary's.
            StoreError: It could not be written; it is not in the store.
        """
        return self.observe_many([Event(user, item, event_id, time)], durable=durable, unknown_items=unknown_items)[0]

    def observe_many(
        self,
        events: Iterable[Event | Sequence[Any]],
        *,
        durable: bool = True,
        unknown_items: str | None = None,
    ) -> list[Observed]:
        """Takes clicks in, in order: up to 1,024 in one transaction, all of them or, on an error, none.

        More are written in several transactions, so that other writers wait for none of them for long. After an error
        the message says how many of the events are written; delivered again with their ids, those count once.

        Args:
            events: `Event` objects, or tuples `(user, item)`, `(user, item, event_id)`, `(user, item, event_id, time)`.
            durable, unknown_items: See `observe`, whose errors this has too.
        """
        checked = [checked_event(_as_event(event)) for event in events]
        if not checked:
            return []
        known = (self.processor.encode_ids([event.item for event in checked], unknown_items) > 0).tolist()
        absorbed: list[Absorbed] = []
        for start in range(0, len(checked), MOST_EVENTS):
            result = self._writer.submit(checked[start : start + MOST_EVENTS], watched=durable)
            if not durable:
                continue
            try:
                absorbed += result.result()
            except StoreError as error:
                if start:
                    error.args = (f"{error} (the first {start:,} of these {len(checked):,} events are written)",)
                raise
        if not durable:
            return [Observed(each) for each in known]
        return [Observed(k, a.duplicate, a.position, True) for k, a in zip(known, absorbed, strict=True)]

    def flush(self) -> None:
        """Returns when all clicks observed so far are written.

        Raises:
            StoreError: Some that were observed with `durable=False` could not be written; they are lost.
        """
        self._writer.flush()

    # ------------------------------------------------------------------ recommendations

    def item_set(self, item_ids: Any, unknown_items: str | None = None) -> ItemSet:
        """Items for `allowed` or `exclude`, looked up once to be used again and again; see `ItemSet`."""
        return ItemSet(self.processor, item_ids, unknown_items)

    @takes_k
    def recommend(
        self,
        user: RawId,
        top_k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        time_gap: float | None = None,
    ) -> Recommendation:
        """The best next items for one user; see `recommend_many`."""
        options: dict[str, Any] = {"exclude_seen": exclude_seen, "allowed": allowed, "exclude": exclude}
        return self.recommend_many([user], top_k, time_gaps=None if time_gap is None else [time_gap], **options)[0]

    @takes_k
    def recommend_many(
        self,
        users: Sequence[RawId],
        top_k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> list[Recommendation]:
        """The best next items for each user.

        A user of whom the model knows no item gets the most popular items (see `item_counts`), each with the score 0,
        since the model has nothing to say of this user, and `cold_start` is true.

        Args:
            users: Raw ids.
            top_k: Items each, between 1 and the number of items. Filters may leave fewer.
            exclude_seen: Whether items of the user's history, all of it, are left out; by default unless the processor
                says `recommend_seen`.
            allowed: Raw ids, a mask or an `ItemSet` (see there): nothing else is recommended.
            exclude: The same: not recommended, whatever their score.
            time_gaps: For models with `use_time_gaps`: the time from each user's last click to now, in the unit of the
                training data; None where not known.

        Raises:
            GlintRUError: `top_k` out of range, the model knows no item of `allowed`, an `ItemSet` is of another one, or
                `time_gaps` that are not one a user, negative, or not for this model.
            StateError: A stored state is damaged.
            StoreError: The store cannot be read.
        """
        top_k = check_top_k(top_k, len(self.processor))
        exclude_seen = leaves_out_seen(exclude_seen, self.processor)
        if isinstance(users, (str, bytes)):
            raise GlintRUError(f"users must be a list of raw user ids, got {users!r}")
        gaps = None if time_gaps is None else checked_gaps(time_gaps, len(users), self.model).numpy()
        filters = ItemFilter.of(self.processor, allowed, exclude)
        records = self.store.read([checked_id(user, "user") for user in users], self.step.fingerprint)
        rows, counts = self.advancer.advance([self._pending(record) for record in records])
        never = filters.never
        hidden = [np.concatenate((never, self._seen.of(record))) if exclude_seen else never for record in records]
        unknown = [max(0, record.last - record.since - int(n)) for record, n in zip(records, counts, strict=True)]

        warm = np.flatnonzero(counts)
        answers = [Recommendation([], number, cold_start=not n) for number, n in zip(unknown, counts, strict=True)]
        if len(warm):
            queries = self.advancer.queries(rows[warm], None if gaps is None else gaps[warm])
            ids, scores = self.index.top_k(queries, top_k, [hidden[n] for n in warm], filters.only)
            for n, *best in zip(warm, ids.tolist(), scores.tolist(), strict=True):
                answers[n].items.extend(self.processor.listed(*each) for each in zip(*best, strict=True) if each[0])
        for n in np.flatnonzero(counts == 0):
            popular = filters.most_popular(top_k, hidden[n], self._cold_order)
            answers[n].items.extend(self.processor.listed(index, 0.0) for index in popular.tolist())
        return answers

    def _pending(self, record: Record) -> Pending:
        """A state that lacks events (another model absorbed them) is caught up for this answer."""
        behind = record.position < record.last
        return Pending(record, self.store.events(record.user, record.position) if behind else ())

    def _order(self, item_counts: Any) -> np.ndarray:
        """All indices, the most popular first, ties and unknown numbers in the order of the vocabulary."""
        counts = np.zeros(self.processor.vocab_size)
        if isinstance(item_counts, Mapping):
            for item, number in item_counts.items():
                if item in self.processor:
                    counts[self.processor.index_of(item)] = number
        elif item_counts is not None:
            if np.shape(item_counts) != counts.shape:
                raise GlintRUError(f"item_counts must have shape {counts.shape}, got {np.shape(item_counts)}")
            counts[:] = item_counts
        return np.argsort(-counts[1:], kind="stable") + 1

    # ------------------------------------------------------------------ rebuilding

    def rebuild(self, user: RawId, history: Iterable[Any] | None = None, unknown_items: str | None = None) -> Rebuilt:
        """Computes a user's state anew and writes it, whatever the store has in its place (a damaged state, too).

        Args:
            user: Raw id.
            history: Takes the place of all events of the user: raw item ids, oldest first, or `Event` objects of this
                user, whose ids are remembered (those of events before are forgotten). None: the events of the store.
            unknown_items: See `observe`.

        Raises:
            StoreError: It could not be written, an event id occurs twice, or other clicks of the user kept coming.
            UnknownItemError: An item is unknown and the policy is `"error"`.
        """
        user = checked_id(user, "user")
        events = None
        if history is not None:
            if isinstance(history, (str, bytes)):
                raise GlintRUError(f"history must be a list of raw item ids, got {history!r}")
            events = [checked_event(e if isinstance(e, Event) else Event(user, e)) for e in history]
            self._check_history(user, events, unknown_items)
        self.flush()
        for _ in range(ATTEMPTS):
            (record,) = self.store.read([user], self.step.fingerprint)
            stored = self.store.events(user, record.since) if events is None else events
            if events is None and not stored:
                return Rebuilt(0, 0)
            nothing = Record(user, record.since, record.last, record.since)
            rows, counts = self.advancer.advance([Pending(nothing, stored)])  # type: ignore[arg-type]
            (state,) = self.advancer.encode(rows, counts)
            position = stored[-1].position if events is None else record.last  # type: ignore[union-attr]
            if self.store.replace([Replacement(record, position, state, events)], self.step.fingerprint)[0]:
                return Rebuilt(len(stored), len(stored) - int(counts[0]))
        raise StoreError(f"user {user!r} could not be rebuilt: other clicks came in between, {ATTEMPTS} times")

    def _check_history(self, user: RawId, events: Sequence[Event], unknown_items: str | None) -> None:
        ids = [event.event_id for event in events if event.event_id is not None]
        if len(ids) > len(set(ids)):
            raise StoreError(f"an event id occurs twice in the history of user {user!r}")
        if any(event.user != user for event in events):
            raise StoreError(f"the history of user {user!r} holds events of other users")
        self.processor.encode_ids([event.item for event in events], unknown_items)

    def _refuse_other_weights(self) -> None:
        for user in self.store.users(limit=1):
            (record,) = self.store.read([user], self.step.fingerprint)
            if record.state is None and record.last > record.since:
                raise StateError(
                    f"the store has events but no states of this model's weights ({self.step.fingerprint}), it was "
                    "used with another model: run rebuild_all first, or give rebuild_on_demand=True"
                )

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Writes what waits, and closes the store where this object opened it. Later clicks are refused.

        Raises:
            StoreError: As `flush`.
        """
        try:
            self._writer.close()
        finally:
            self._close_store()

    def _close_store(self) -> None:
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> StreamingRecommender:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _as_event(event: Event | Sequence[Any]) -> Event:
    if isinstance(event, Event):
        return event
    if isinstance(event, tuple) and 2 <= len(event) <= 4:
        return Event(*event)
    raise StoreError(f"an event is (user, item), (user, item, event_id) or (user, item, event_id, time), got {event!r}")


# ---------------------------------------------------------------------- all users


@dataclass(frozen=True)
class RebuildReport:
    """What was rebuilt.

    Args:
        users: States written.
        events: Events that they took in.
        overtaken: Users whose state somebody else wrote meanwhile; theirs is as new.
    """

    users: int
    events: int
    overtaken: int


def rebuild_all(recommender: StreamingRecommender, *, page_size: int = 256, progress: bool = True) -> RebuildReport:
    """Computes the states that the recommender's weights lack in its store, from the raw events.

    States of other weights stay beside them: a process that serves from those goes on, and what it takes in meanwhile
    is caught up when the new weights come to serve. Each page of users is one transaction, so that the job can be
    stopped at any time; the next run goes on where it stood, since it leaves out users whose state is complete. A state
    that is only behind goes on from where it is.

    Args:
        recommender: Of the new weights, made with `rebuild_on_demand=True`.
        page_size: Users of a transaction.
        progress: Whether to show a progress bar.

    Raises:
        StoreError: The store cannot be read or written; pages before are kept.
        StateError: A stored state of these very weights is damaged.

    Example:
        >>> with StreamingRecommender.from_pretrained("outputs/new", "users.db", rebuild_on_demand=True) as new:
        ...     rebuild_all(new)
    """
    store, fingerprint = recommender.store, recommender.step.fingerprint
    users = events = overtaken = 0
    total = sum(map(len, pages(store, 10_000, fingerprint))) if progress else None
    with tqdm(total=total, desc="Rebuilding", unit=" users", disable=not progress) as bar:
        for page in pages(store, page_size, fingerprint):
            pending = [Pending(r, store.events(r.user, r.position)) for r in store.read(page, fingerprint)]
            pending = [each for each in pending if each.events]
            states = recommender.advancer(pending) if pending else []
            replacements = [
                Replacement(each.record, each.events[-1].position, state)
                for each, state in zip(pending, states, strict=True)
            ]
            written = store.replace(replacements, fingerprint)
            users += sum(written)
            overtaken += len(page) - sum(written)
            events += sum(len(each.events) for each, done in zip(pending, written, strict=True) if done)
            bar.update(len(page))
    return RebuildReport(users, events, overtaken)


def pages(store: UserStateStore, size: int, behind: str | None = None) -> Iterator[list[RawId]]:
    """All users of a store, or those whose state under a fingerprint is behind, `size` at a time."""
    after: RawId | None = None
    while page := store.users(after, size, behind):
        yield page
        after = page[-1]
