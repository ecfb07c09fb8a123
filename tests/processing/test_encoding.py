"""Histories in, model inputs out; scores in, items out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_glintru.models.configuration_glintru import GlintRUError
from modeling_glintru.models.processing_glintru import GlintRUProcessor, UnknownItemError, VocabularyError


@pytest.fixture
def letters() -> GlintRUProcessor:
    return GlintRUProcessor(list("abcde"), ["Apple", "Bread", None, "Dates", "Eggs"], max_length=3)


def test_a_batch_is_padded_and_cut_to_the_newest(letters):
    batch = letters([["a", "b", "c", "d"], ["e"], []])
    assert batch["input_ids"].tolist() == [[2, 3, 4], [5, 0, 0], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert set(batch) == {"input_ids", "attention_mask"}


def test_left_padding(letters):
    letters.padding_side = "left"
    batch = letters([["a", "b"], ["e"]])
    assert batch["input_ids"].tolist() == [[1, 2], [0, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("history", [["a", "b"], ("a", "b"), np.array(["a", "b"]), iter("ab")])
def test_one_history_is_a_batch_of_one(letters, history):
    assert letters(history)["input_ids"].tolist() == [[1, 2]]


def test_empty_histories_get_one_padding_column(letters):
    for empty in ([], [[]], ["unknown"]):
        batch = letters(empty)
        assert batch["input_ids"].tolist() == [[0]]
        assert batch["attention_mask"].tolist() == [[0]]
    assert letters([[], ["a"], []])["input_ids"].tolist() == [[0], [1], [0]]


def test_integer_histories_in_arrays():
    processor = GlintRUProcessor([10, 20, 30])
    assert processor(np.array([[10, 20], [30, 10]]))["input_ids"].tolist() == [[1, 2], [3, 1]]
    assert processor([np.array([30]), torch.tensor([20, 10])])["input_ids"].tolist() == [[3, 0], [2, 1]]


def test_unknown_items_are_left_out_before_the_cut_and_counted(letters):
    batch = letters([["a", "b", "c", "x"], ["y", "y"], ["d"]], return_num_unknown_items=True)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert batch["num_unknown_items"].tolist() == [1, 2, 0]
    assert batch["num_unknown_items"].dtype == torch.int64


def test_unknown_items_are_refused_by_name(letters):
    letters.unknown_items = "error"
    with pytest.raises(UnknownItemError, match=r"^2 item id\(s\) .*'x', 'y' "):
        letters([["a", "x"], ["y", "x"]])
    assert letters([["a", "x"]], unknown_items="drop")["input_ids"].tolist() == [[1]]
    with pytest.raises(GlintRUError, match="unknown_items"):
        letters([["a"]], unknown_items="keep")


def test_length_and_padding_options(letters):
    assert letters([["a", "b", "c"], ["d"]], max_length=1)["input_ids"].tolist() == [[3], [4]]
    assert letters([["a"]], padding="max_length")["input_ids"].tolist() == [[1, 0, 0]]
    ragged = letters([["a", "b"], ["c"]], padding=False)
    assert ragged["input_ids"] == [[1, 2], [3]]
    assert ragged["attention_mask"] == [[1, 1], [1]]
    with pytest.raises(GlintRUError, match="padding"):
        letters([["a"]], padding="longest-ever")


def test_return_types(letters):
    assert isinstance(letters(["a"], return_tensors="np")["input_ids"], np.ndarray)
    assert letters(["a"], return_tensors=None)["input_ids"] == [[1]]
    with pytest.raises(GlintRUError, match="return_tensors"):
        letters(["a"], return_tensors="tf")


@pytest.mark.parametrize(
    ("histories", "named"),
    [
        ("abc", "'abc'"),
        (["a", ["b"]], "mix"),
        ([["a", None]], "None"),
        ([[1, 2]], "are strings, but got 1"),
        ([["a"], [1]], "'a' and 1"),
        (None, "None"),
        ([["a"], None], "mix"),
    ],
)
def test_histories_in_another_shape_are_refused(letters, histories, named):
    with pytest.raises(VocabularyError, match=named):
        letters(histories)


def test_decode_is_the_inverse_of_encode(letters):
    histories = [["e", "a"], ["c"]]
    assert letters.decode(letters(histories)["input_ids"]) == histories
    assert letters.decode([3, 0, 1]) == ["c", "a"]
    assert letters.decode(np.array([2])) == ["b"]
    assert letters.decode([]) == []
    with pytest.raises(VocabularyError, match="6"):
        letters.decode([6])


def test_decode_top_k_gives_items_best_first(letters):
    logits = torch.tensor([[9.0, 1.0, 3.0, 2.0, -torch.inf, torch.nan]])
    assert letters.decode_top_k(logits, top_k=2) == [
        [
            {"item_id": "b", "title": "Bread", "score": 3.0},
            {"item_id": "c", "title": None, "score": 2.0},
        ]
    ]
    assert [item["item_id"] for item in letters.decode_top_k(logits)[0]] == ["b", "c", "a"]


def test_decode_top_k_takes_arrays_rows_half_precision_and_gradients(letters):
    untitled = GlintRUProcessor([10, 20])
    scores = [[0.0, 0.5, 0.25], [0.0, 0.25, 0.5]]
    expected = [[{"item_id": 10, "score": 0.5}], [{"item_id": 20, "score": 0.5}]]
    assert untitled.decode_top_k(np.array(scores), top_k=1) == expected
    assert untitled.decode_top_k(torch.tensor(scores, dtype=torch.bfloat16, requires_grad=True), top_k=1) == expected
    assert untitled.decode_top_k(torch.tensor(scores[0]), top_k=1) == expected[:1]


def test_decode_top_k_refuses_scores_of_another_model(letters):
    with pytest.raises(GlintRUError, match=r"shape \(batch, 6\), but got \(1, 7\)"):
        letters.decode_top_k(torch.zeros(1, 7))
    for top_k in (0, -1, True, 2.5):
        with pytest.raises(GlintRUError, match="top_k"):
            letters.decode_top_k(torch.zeros(1, 6), top_k=top_k)
