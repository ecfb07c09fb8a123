"""Complete histories out of a split, held-out items and held-out users included: what a last training learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from ..errors import DataError
from ..models.configuration_glintru import UNKNOWN_GAP
from .splits import PARTS, Rows, Splits

if TYPE_CHECKING:
    from datasets import Dataset

    from .prepare import PreparedData
    from .sequences import Sequences

__all__ = ["WHOLE", "cut_users", "with_everything"]

WHOLE = "whole"  # a further part: complete histories of those users of whom the other parts hold only a beginning
ROWS_PER_CHUNK = 65_536  # the 32-bit offsets of a list column must not overflow
LISTS = {"item_ids": pa.list_(pa.int32()), "time_gaps": pa.list_(pa.float32())}


def cut_users(sequences: Sequences, splits: Splits) -> Rows:
    """The complete histories of the users of whom no row, with its target, is that.

    There are none in `leave_one_out` and `user`, where a test target is a user's last item; in `temporal` it is the
    first after the cut.
    """
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    reached = starts.copy()
    for name in PARTS:
        part = getattr(splits, name)
        stops = part.stops if part.targets is None else part.stops + (part.targets == part.stops)
        np.maximum.at(reached, part.users, stops)
    users = np.flatnonzero(reached < ends)
    return Rows(users, starts[users], ends[users])


def with_everything(data: PreparedData) -> PreparedData:
    """The same data with every user's complete history for training, a row a user, in the order of the users.

    The other parts stay as they are, but nothing is held out any more: figures on them would mean nothing.

    Raises:
        DataError: The parts do not hold all interactions, as in a folder that an older version prepared by time.
    """
    parts = [_lists(data.dataset[name]) for name in data.dataset]
    sizes = [part.select("user_id", length=_length(part)) for part in parts]
    # The longest row of each user is chosen before any row is copied.
    longest = pl.concat(part.with_row_index("row").with_columns(part=number) for number, part in enumerate(sizes))
    longest = longest.sort("length").unique("user_id", keep="last", maintain_order=True)
    chosen = (part[longest.filter(part=number)["row"]] for number, part in enumerate(parts))
    table = pl.concat(map(_with_target, chosen)).sort("user_id")
    found, expected = int(table["item_ids"].list.len().sum()), data.summary["interactions"]
    if found != expected:
        raise DataError(
            f"The prepared data holds {found:,} of its {expected:,} interactions: what follows the test targets of its "
            "split was left out by an older version, so there is no training on everything (--refit); run glintru "
            "prepare again, or give --data the interactions themselves."
        )
    train = _dataset(table, data.dataset["train"].data.schema)
    return replace(data, dataset=type(data.dataset)({**data.dataset, "train": train}))


def _lists(part: Dataset) -> pl.DataFrame:
    """The rows of a part as they are, for polars."""
    columns = {}
    for name in part.column_names:
        column = part.data.column(name)
        columns[name] = pl.Series(name, column.cast(pa.large_list(column.type.value_type)) if name in LISTS else column)
    return pl.DataFrame(columns)


def _length(part: pl.DataFrame) -> pl.Expr:
    return pl.col("item_ids").list.len() + ("target" in part.columns)


def _with_target(part: pl.DataFrame) -> pl.DataFrame:
    """Histories with their targets at the end; after a target comes no known time."""
    if "target" not in part.columns:
        return part
    ends = {"item_ids": pl.col("target"), "time_gaps": pl.lit(UNKNOWN_GAP, pl.Float32)}
    return part.select("user_id", *(pl.concat_list(name, ends[name]) for name in part.columns if name in ends))


def _dataset(table: pl.DataFrame, schema: pa.Schema) -> Dataset:
    from datasets import Dataset

    schema = pa.schema([(name, LISTS.get(name, schema.field(name).type)) for name in table.columns])
    pieces = [piece.to_arrow().cast(schema) for piece in table.iter_slices(ROWS_PER_CHUNK)]
    return Dataset(pa.concat_tables(pieces))
