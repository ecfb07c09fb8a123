"""Raw ids and indices: types, order, unknown items, whole columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_glintru.models.configuration_glintru import GlintRUError
from modeling_glintru.models.processing_glintru import GlintRUProcessor, UnknownItemError, VocabularyError

STRINGS = ["007", "7", "", " 7 ", "Zoë", "日本", "a\0", "a", "🎬", "\ud800"]
INTEGERS = [0, -5, 2**63 - 1, -(2**63), 7, 2**53 + 1, 2**53]


@pytest.mark.parametrize("ids", [STRINGS, INTEGERS], ids=["string", "integer"])
def test_ids_keep_value_type_and_order(ids):
    processor = GlintRUProcessor(ids)
    assert list(processor.item_ids) == ids
    assert [type(raw) for raw in processor.item_ids] == [type(ids[0])] * len(ids)
    assert [processor.index_of(raw) for raw in ids] == list(range(1, len(ids) + 1))
    assert [processor.raw_id(index) for index in range(1, len(ids) + 1)] == ids
    assert processor.encode_ids(ids).tolist() == list(range(1, len(ids) + 1))
    assert len(processor) == len(ids)
    assert processor.vocab_size == len(ids) + 1


def test_id_type_and_membership():
    strings, integers = GlintRUProcessor(["1", "2"]), GlintRUProcessor([1, 2])
    assert (strings.id_type, integers.id_type) == ("string", "integer")
    assert "1" in strings and 1 not in strings
    assert 1 in integers and np.int32(1) in integers and "1" not in integers
    assert True not in integers and 1.0 not in integers and [1] not in integers and None not in integers


@pytest.mark.parametrize(
    "ids",
    [
        np.array([3, 1], np.int32),
        np.array([3, 1], np.uint64),
        [np.int64(3), 1],
        torch.tensor([3, 1]),
        pd.Series([3, 1], dtype="Int64"),
        pl.Series([3, 1]),
        pa.array([3, 1]),
        (3, 1),
        iter([3, 1]),
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_integer_columns_of_any_library(ids):
    processor = GlintRUProcessor(ids)
    assert processor.item_ids == (3, 1)
    assert {type(raw) for raw in processor.item_ids} == {int}


@pytest.mark.parametrize(
    "ids",
    [
        np.array(["b", "a"]),
        np.array(["b", "a"], object),
        [np.str_("b"), "a"],
        pd.Series(["b", "a"]),
        pl.Series(["b", "a"]),
        pl.Series(["b", "a"], dtype=pl.Categorical),
        pa.chunked_array([["b"], ["a"]]),
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_string_columns_of_any_library(ids):
    processor = GlintRUProcessor(ids)
    assert processor.item_ids == ("b", "a")
    assert {type(raw) for raw in processor.item_ids} == {str}
    assert processor.encode_ids(ids).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([], "empty"),
        (None, "empty"),
        (["a", "b", "a"], "'a' occurs more than once"),
        ([1, 2, 3, 2], "2 occurs more than once"),
        (["a", 1], "'a' and 1"),
        ([1, True], "True"),
        (np.array([True, False]), "True"),
        ([1.0, 2.0], "1.0"),
        ([1, None], "None"),
        ([b"a"], "b'a'"),
        (["a", float("nan")], "nan"),
        ([["a"]], "'a'"),
        ("abc", "single text"),
        (5, "list"),
        ([2**63], "64 bits"),
        ([-(2**63) - 1], "64 bits"),
    ],
)
def test_ids_that_make_no_vocabulary(ids, named):
    with pytest.raises(VocabularyError, match=named) as caught:
        GlintRUProcessor(ids)
    assert isinstance(caught.value, GlintRUError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_length", 0),
        ("max_length", True),
        ("max_length", "200"),
        ("unknown_items", "ignore"),
        ("padding_side", "middle"),
    ],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(GlintRUError, match=setting):
        GlintRUProcessor(["a"], **{setting: value})


def test_unknown_items_in_a_column_become_zero_or_an_error():
    strings = GlintRUProcessor(["a", "b"])
    assert strings.encode_ids(["b", "x", "a"]).tolist() == [2, 0, 1]
    with pytest.raises(UnknownItemError, match=r"^7 item id\(s\).*'1', '2', '3', '4', '5', \.\.\."):
        strings.encode_ids(["a", *"1234567", "7"], unknown_items="error")
    integers = GlintRUProcessor([5, -3])
    for column in ([-3, 6, 5], np.array([-3, 6, 5])):
        assert integers.encode_ids(column).tolist() == [2, 0, 1]
        with pytest.raises(UnknownItemError, match="6"):
            integers.encode_ids(column, unknown_items="error")
    assert integers.encode_ids([2**70]).tolist() == [0]


def test_unsigned_integers_are_compared_exactly():
    processor = GlintRUProcessor([2**53, 2**63 - 1])
    assert processor.encode_ids(np.array([2**53 + 1, 2**63 - 1, 2**63], np.uint64)).tolist() == [0, 2, 0]


def test_ids_of_the_other_type_are_an_error_not_unknown():
    with pytest.raises(VocabularyError, match="are strings, but got 1"):
        GlintRUProcessor(["1"]).encode_ids(np.array([1, 2]))
    with pytest.raises(VocabularyError, match="are integers, but got '1'"):
        GlintRUProcessor([1]).encode_ids(["1"])
    with pytest.raises(VocabularyError, match="None"):
        GlintRUProcessor([1]).encode_ids(pl.Series([1, None]))


def test_index_of_and_raw_id_refuse_what_they_do_not_know():
    processor = GlintRUProcessor([10, 20])
    with pytest.raises(UnknownItemError, match="30"):
        processor.index_of(30)
    with pytest.raises(VocabularyError, match="'10'"):
        processor.index_of("10")
    for index in (0, 3, -1):
        with pytest.raises(VocabularyError, match="from 1 to 2"):
            processor.raw_id(index)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True), st.data())
def test_arrays_and_lists_of_integers_are_looked_up_alike(ids, data):
    processor = GlintRUProcessor(ids)
    column = data.draw(st.lists(st.one_of(st.sampled_from(ids), st.integers(-(2**63), 2**63 - 1))))
    expected = [ids.index(raw) + 1 if raw in ids else 0 for raw in column]
    assert processor.encode_ids(column).tolist() == expected
    assert processor.encode_ids(np.array(column, np.int64)).tolist() == expected


def test_titles():
    assert GlintRUProcessor(["a", "b"]).title("a") is None
    processor = GlintRUProcessor(["a", "b"], ["Apple", None])
    assert (processor.title("a"), processor.title("b")) == ("Apple", None)
    assert GlintRUProcessor([3, 4], {4: "Four", 9: "Nine"}).item_titles == (None, "Four")
    assert GlintRUProcessor(["a"], [None]).item_titles is None
    with pytest.raises(UnknownItemError, match="'c'"):
        processor.title("c")
    with pytest.raises(VocabularyError, match="2 items but 1 titles"):
        GlintRUProcessor(["a", "b"], ["Apple"])
    with pytest.raises(VocabularyError, match="title"):
        GlintRUProcessor(["a"], [5])
    with pytest.raises(VocabularyError, match="'3'"):
        GlintRUProcessor([3], {"3": "Three"})


def test_counts_follow_the_ids_and_new_items_have_none():
    processor = GlintRUProcessor(["a", "b", "c"], item_counts={"c": 5, "a": 2, "z": 9})
    assert processor.item_counts.tolist() == [2, 0, 5]
    processor.add_items(["d"])
    assert processor.item_counts.tolist() == [2, 0, 5, 0]
    assert GlintRUProcessor(["a"]).item_counts is None


@pytest.mark.parametrize("counts", [[1, 2], [1, -1, 0], [1.0, 2.0, 3.0], [[1, 2, 3]]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(VocabularyError, match="item_counts must be 3 integers"):
        GlintRUProcessor(["a", "b", "c"], item_counts=counts)
