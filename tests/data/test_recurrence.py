"""How often items recur, against a double loop, and what `prepare` makes of it."""

from __future__ import annotations

import numpy as np
import pytest

import modeling_glintru.data.summary as recurrence
from modeling_glintru.data import load_prepared
from modeling_glintru.data.prepare import prepare
from modeling_glintru.data.summary import RECURRING, recurring_targets, recurring_training_targets

from ..evaluation.helpers import make_split
from .helpers import make_interactions


def histories(seed: int, count: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 12, rng.integers(0, 9)).tolist() for _ in range(count)]


def test_shares_equal_a_double_loop(monkeypatch):
    monkeypatch.setattr(recurrence, "ROWS_PER_BLOCK", 7)
    rows = histories(0)
    found = [item in row[:place] for row in rows for place, item in enumerate(row) if place]
    assert recurring_training_targets(make_split(rows)) == pytest.approx(np.mean(found))
    targets = np.random.default_rng(1).integers(1, 12, len(rows)).tolist()
    expected = np.mean([target in row for row, target in zip(rows, targets, strict=True)])
    assert 0 < expected < 1 and recurring_targets(make_split(rows, targets)) == pytest.approx(expected)


def test_nothing_to_count():
    assert recurring_training_targets(make_split([[], [3]])) == 0
    assert recurring_targets(make_split([], [])) == 0


def table(share: float, users: int = 200, length: int = 20):
    """Users who take an item again with a probability, and else one that they have not taken."""
    rng = np.random.default_rng(2)
    rows = []
    for user in range(users):
        history: list[int] = []
        for step in range(length):
            new = int(rng.choice(np.setdiff1d(np.arange(1, 101), history)))
            item = int(rng.choice(history)) if history and rng.random() < share else new
            history.append(item)
            rows.append((user, item, step))
    return make_interactions(*map(list, zip(*rows, strict=True)))


@pytest.mark.parametrize(("share", "again"), [(0.0, False), (RECURRING / 2, False), (2 * RECURRING, True), (0.5, True)])
def test_the_data_decides_whether_past_items_are_recommended(share, again, tmp_path):
    data = prepare(table(share), tmp_path / "prepared")
    assert data.recurring == pytest.approx(share, abs=0.02) and data.processor.recommend_seen is again
    assert f"{data.recurring:.1%} of the training targets" in data.describe()
    opened = load_prepared(tmp_path / "prepared")
    assert opened.processor.recommend_seen is again and opened.recurring == data.recurring
    assert opened.processor.item_counts.tolist() == data.item_counts[1:].tolist()
    assert prepare(table(share), recommend_seen=not again).processor.recommend_seen is not again


def test_the_vocabulary_of_a_model_keeps_what_it_serves():
    own = prepare(table(0.0)).processor
    again = prepare(table(0.5), processor=own)
    assert again.recurring > 0.4 and not again.processor.recommend_seen
    assert own.item_counts.tolist() != again.processor.item_counts.tolist()  # the model's own stays as it is
    assert prepare(table(0.5), processor=own, recommend_seen=True).processor.recommend_seen
