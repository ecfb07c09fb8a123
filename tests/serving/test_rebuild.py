"""`rebuild_all`: new states from raw events, stopped and gone on with, beside a recommender that serves."""

from __future__ import annotations

import pytest

from modeling_glintru.errors import StateError
from modeling_glintru.serving import rebuild_all

from .test_streaming import ITEMS, file, full, history, make, recommender, same  # noqa: F401 (fixtures)

LENGTHS = [1, 2, 3, 5, 8, 20, 40, 600]


@pytest.fixture(params=["memory", "sqlite"])
def both(request, tmp_path):
    """A recommender of old weights that has served, and one of new weights on the same store."""
    with make(None if request.param == "memory" else tmp_path / "users.db") as old:
        old.observe_many([(n, item) for n, length in enumerate(LENGTHS) for item in history(length, n)])
        with make(old.store, seed=1, rebuild_on_demand=True) as new:
            yield old, new


def check(recommender, seed, more=()):  # noqa: F811
    histories = [history(length, n) + [item for user, item in more if user == n] for n, length in enumerate(LENGTHS)]
    for ours, theirs in zip(recommender.recommend_many(range(8)), full(histories, seed=seed), strict=True):
        same(ours, theirs)


def states(recommender):  # noqa: F811
    return recommender.store.read(range(8), recommender.step.fingerprint)


def test_rebuilding(both, capsys):
    old, new = both
    report = rebuild_all(new)
    assert (report.users, report.events, report.overtaken) == (8, sum(LENGTHS), 0)
    assert "Rebuilding: 100%" in capsys.readouterr().err
    assert all(record.position == record.last for record in states(new))
    check(new, seed=1)
    check(old, seed=0)
    make(new.store, seed=1).close()
    assert rebuild_all(new, progress=False).users == 0
    assert capsys.readouterr().err == ""


def test_stopped_and_gone_on_with(both):
    old, new = both
    replace, calls = new.store.replace, []

    def stop(replacements, fingerprint):
        calls.append(len(replacements))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return replace(replacements, fingerprint)

    new.store.replace = stop
    with pytest.raises(KeyboardInterrupt):
        rebuild_all(new, page_size=2, progress=False)
    assert [record.state is not None for record in states(new)] == [True] * 4 + [False] * 4
    old.observe(0, ITEMS[7])  # serving goes on
    assert rebuild_all(new, page_size=3, progress=False).users == 5  # the rest, and the one that is behind by now
    check(new, seed=1, more=[(0, ITEMS[7])])
    check(old, seed=0, more=[(0, ITEMS[7])])


def test_events_that_arrive_meanwhile(both):
    """Before a page is read, between reading and writing, and after: from the old weights and from the new."""
    old, new = both
    replace, more = new.store.replace, []

    def late(replacements, fingerprint):
        for user, by in ((0, old), (1, new), (7, old), (50, old)):
            more.append((user, ITEMS[len(more)]))
            by.observe(*more[-1])
        return replace(replacements, fingerprint)

    new.store.replace = late
    report = rebuild_all(new, page_size=3, progress=False)
    assert report.overtaken == 1  # user 1, whose new state is that of the click
    new.store.replace = replace
    check(new, seed=1, more=more)
    check(old, seed=0, more=more)
    rebuild_all(new, progress=False)
    assert all(record.position == record.last for record in states(new))
    check(new, seed=1, more=more)


def test_dropping_the_old_states(both):
    old, new = both
    rebuild_all(new, progress=False)
    new.store.keep_only(new.step.fingerprint)
    assert all(record.state is None for record in states(old))
    check(new, seed=1)
    check(old, seed=0)  # from the events
    with pytest.raises(StateError):
        make(old.store)
