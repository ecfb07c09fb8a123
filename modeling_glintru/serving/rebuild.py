"""`rebuild_all`: the states of all users from their raw events, after the weights have changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tqdm.auto import tqdm

from .store import Pending, RawId, Replacement, UserStateStore
from .streaming import StreamingRecommender

__all__ = ["RebuildReport", "rebuild_all"]


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
