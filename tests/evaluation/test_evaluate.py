"""The whole pass: against a loop, for any batch size, and with bad input."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from modeling_glintru.data import histories as histories_module
from modeling_glintru.errors import DataError
from modeling_glintru.evaluation import Evaluation, evaluate
from modeling_glintru.evaluation.ranking import MISSED

from .helpers import HashScorer, make_split, naive_rank, random_split

evaluate_module = importlib.import_module("modeling_glintru.evaluation.evaluate")  # the package shows the function

ALL = ("full", "pop100", "uni100")


def test_ranks_equal_a_loop_over_users_with_and_without_history() -> None:
    split, scorer = random_split(40, 15, seed=0), HashScorer(16)
    ranks = evaluate(scorer, split, progress=False).ranks
    for row, example in enumerate(split):
        scores = scorer([np.array(example["item_ids"], dtype=np.int64)])[0].tolist()
        assert ranks["full"][row] == naive_rank(scores, example["target"], set(example["item_ids"]))
        assert ranks["full_with_history"][row] == naive_rank(scores, example["target"], set())
    assert (ranks["full"] != ranks["full_with_history"]).any()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_results_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    split, counts = random_split(50, 60, seed=1), np.arange(61)
    expected = evaluate(HashScorer(61), split, protocols=ALL, item_counts=counts, batch_size=16, progress=False)
    found = evaluate(HashScorer(61), split, protocols=ALL, item_counts=counts, batch_size=batch_size, progress=False)
    assert sorted(found.ranks) == sorted(name + end for name in ALL for end in ("", "_with_history"))
    for column, ranks in expected.ranks.items():
        assert np.array_equal(ranks, found.ranks[column]), column
        assert expected.table(column) == found.table(column)


def test_batches_shrink_with_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_split(30, 60, seed=1)
    expected = evaluate(HashScorer(61), split, progress=False).ranks["full"]
    monkeypatch.setattr(evaluate_module, "MAX_SCORES", 61 * 4 + 3)
    scorer = HashScorer(61)
    assert np.array_equal(evaluate(scorer, split, batch_size=128, progress=False).ranks["full"], expected)
    assert max(scorer.batch_sizes) == 4
    monkeypatch.setattr(evaluate_module, "MAX_SCORES", 1)
    assert np.array_equal(evaluate(scorer, split, batch_size=128, progress=False).ranks["full"], expected)


def test_sampled_protocols_keep_to_the_seed_and_to_their_bars() -> None:
    split, counts = random_split(60, 40, seed=2), np.full(41, 3)

    def run(seed):
        return evaluate(
            HashScorer(41), split, protocols=("pop10", "uni10"), item_counts=counts, seed=seed, progress=False
        ).ranks

    first = run(1)
    assert all(np.array_equal(first[column], again) for column, again in run(1).items())
    assert any(not np.array_equal(first[column], other) for column, other in run(2).items())
    assert np.array_equal(first["pop10"], first["uni10"])  # equal counts are uniform
    missed = np.array([row["target"] in row["item_ids"] for row in split])
    assert missed.any()
    for column, ranks in first.items():
        barred = np.zeros_like(missed) if column.endswith("_with_history") else missed
        assert np.array_equal(ranks == MISSED, barred) and ranks[~barred].max() <= 11, column


def test_a_sampled_rank_never_passes_the_full_one() -> None:
    split = random_split(60, 40, seed=3)
    ranks = evaluate(HashScorer(41), split, protocols=("full", "uni20"), progress=False).ranks
    assert (ranks["uni20"] <= ranks["full"]).all()
    assert (ranks["uni20_with_history"] <= ranks["full_with_history"]).all()


def test_table_has_means_inside_their_intervals_as_plain_floats() -> None:
    evaluation = evaluate(HashScorer(31), random_split(80, 30, seed=4), ks=(1, 10), progress=False)
    table = evaluation.table()
    assert list(table) == ["ndcg@1", "hr@1", "mrr@1", "ndcg@10", "hr@10", "mrr@10"]
    assert table["hr@10"]["value"] == (evaluation.ranks["full"] <= 10).mean()
    for entry in table.values():
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert {type(number) for number in entry.values()} == {float}
    assert evaluation.num_users == 80
    assert list(evaluation.tables("test")) == ["test", "test_with_history"]
    with pytest.raises(DataError, match=r"'pop100'.*full, full_with_history"):
        evaluation.table("pop100")


@pytest.mark.parametrize("block", [100_000, 3])
def test_users_with_several_targets_are_counted_once(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories_module, "LENGTHS_PER_BLOCK", block)
    split = random_split(12, 30, seed=4)
    names = ["a", "a", "b", "c", "c", "c", "c", "d", "e", "e", "f", "g"]
    shared = split.remove_columns("user_id").add_column("user_id", names)  # type: ignore[call-arg]
    evaluation = evaluate(HashScorer(31), shared, progress=False)
    assert (evaluation.num_users, evaluation.num_targets) == (7, 12)
    assert evaluation.users is not None
    assert evaluation.users.tolist() == [0, 0, 1, 2, 2, 2, 2, 3, 4, 4, 5, 6]
    alone = evaluate(HashScorer(31), split, progress=False)
    assert alone.users is None and alone.num_users == alone.num_targets == 12
    assert alone.table()["hr@10"]["value"] == evaluation.table()["hr@10"]["value"]
    assert alone.table()["hr@10"] != evaluation.table()["hr@10"]


def test_sampled_columns_get_their_names_in_a_report() -> None:
    names = Evaluation({name: np.array([1]) for name in ("full", "full_with_history", "pop100")}, (10,), 0).tables(
        "test"
    )
    assert list(names) == ["test", "test_with_history", "test_pop100"]


def test_rows_may_be_selected_and_reordered() -> None:
    split, order = random_split(20, 15, seed=5), [7, 3, 19, 0]
    whole = evaluate(HashScorer(16), split, progress=False).ranks["full"]
    part = evaluate(HashScorer(16), split.select(order), progress=False).ranks["full"]
    assert part.tolist() == whole[order].tolist()


def test_histories_without_items_are_ranked() -> None:
    split = make_split([[], []], [1, 2])
    ranks = evaluate(HashScorer(4), split, protocols=("full", "uni2"), progress=False).ranks
    assert np.array_equal(ranks["full"], ranks["full_with_history"])


BAD = {
    "no rows": ({"split": make_split([], [])}, "no row to evaluate"),
    "a training split": ({"split": make_split([[1, 2]])}, "no column 'target'"),
    "a target outside": ({"split": make_split([[1]], [9])}, "has index 9, outside 0…4"),
    "a history outside": ({"split": make_split([[7]], [1])}, "has index 7, outside 0…4"),
    "a target that is padding": ({"split": make_split([[1]], [0])}, "padding"),
    "a null target": ({"split": make_split([[1]], [None])}, "one target"),
    "an unknown protocol": ({"protocols": ("pop",)}, "unknown protocol 'pop'"),
    "no counts": ({"protocols": ("pop100",)}, "needs item_counts"),
    "counts of another size": ({"protocols": ("pop100",), "item_counts": np.ones(4)}, "4 entries.*5 columns"),
    "all items seen": ({"split": make_split([[1, 2, 3, 4]], [4]), "protocols": ("uni5",)}, "row 0 .* no item left"),
    "no cutoff": ({"ks": ()}, "one cutoff"),
    "a wrong scorer": ({"scorer": lambda histories: torch.zeros(3, 5)}, "shape \\(3, 5\\) for 1 histories"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_sentence(name: str) -> None:
    arguments, message = BAD[name]
    arguments = {"scorer": HashScorer(5), "split": make_split([[1, 2]], [3]), **arguments}
    with pytest.raises(DataError, match=message):
        evaluate(arguments.pop("scorer"), arguments.pop("split"), progress=False, **arguments)


def test_intervals_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = evaluate(HashScorer(41), random_split(60, 40, seed=2), num_bootstrap=10, progress=False)
    tables = evaluation.tables("test")
    monkeypatch.setattr(evaluate_module, "bootstrap_interval", None)
    assert evaluation.table() == tables["test"] and evaluation.tables("validation")["validation"] == tables["test"]
    with pytest.raises(TypeError):
        evaluation.table(num_bootstrap=11)
