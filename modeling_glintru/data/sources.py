"""Reads interactions and titles of named data sets, of tables, and of the files of a given split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import DataError
from .columns import has_usual_name, recognise_column, recognise_item_column
from .example_data import load_movielens_100k, movielens_100k_titles, synthetic_interactions, synthetic_item_titles
from .files import is_prepared
from .interactions import Interactions, read_ids, read_interactions
from .readers import open_table
from .reading import FILE_FORM, ReadingOptions

__all__ = ["NAMED_SOURCES", "NamedSource", "load_source", "load_titles", "options_for", "read_given_split"]


@dataclass(frozen=True)
class NamedSource:
    """The functions that load the interactions and titles of a named data set."""

    interactions: Callable[[], Interactions]
    titles: Callable[[], dict[Any, str]]


NAMED_SOURCES = {
    "demo": NamedSource(synthetic_interactions, synthetic_item_titles),
    "ml-100k": NamedSource(load_movielens_100k, movielens_100k_titles),
}


def load_source(source: Any, *, split: str = "train", **reading: Any) -> Interactions:
    """Interactions of a named source (`"ml-100k"`, `"demo"`), or of anything that `read_interactions` takes.

    Raises:
        DataError: As in `read_interactions`, or options of reading are given for a named source.
    """
    given = {name: value for name, value in reading.items() if value not in (None, False, (), [])}
    if isinstance(source, str) and source in NAMED_SOURCES:
        if given:
            options = ", ".join(f"--{name}" for name in given)
            raise DataError(f"The source {source!r} has fixed columns and rows: leave {options} out.")
        return NAMED_SOURCES[source].interactions()
    return read_interactions(source, split=split, **given)


def options_for(source: Any, options: ReadingOptions, like: str | None) -> dict[str, Any]:
    """The options for `load_source` by which a table is read in the same way as the table `like`, read with `options`.

    Names of columns are taken where the table has these columns, and the options of text files where both files have
    the same suffix. All others are taken, so that for example a model of purchases is evaluated on purchases.

    Raises:
        DataError: The table cannot be opened.
    """
    given = options.given()
    if not given or (isinstance(source, str) and (source in NAMED_SOURCES or is_prepared(source))):
        return {}
    same_form = isinstance(source, str) and like is not None and _suffix(source) == _suffix(like)
    form = {name: given[name] for name in FILE_FORM if name in given and same_form}
    return options.fitting(open_table(source, **form).names, same_form)


def _suffix(file: str) -> str:
    return Path(file.removesuffix(".gz")).suffix.lower()


def load_titles(
    source: Any,
    *,
    item_column: str | None = None,
    title_column: str | None = None,
    split: str = "train",
    **form: Any,
) -> dict[Any, str] | None:
    """Titles by raw item id, or None where the table has no column of titles and none was named.

    Args:
        source: A named source, or any table with a column of item ids and one of titles; the first title of an item
            counts.
        item_column: Name of the column of item ids; where the table does not have it, one with a usual name is taken.
        title_column: Name of the column of titles.
        split: Name of the split, of a data set that has several.
        form: `encoding`, `separator`, `columns` and `quote` of `ReadingOptions`.

    Raises:
        DataError: The table cannot be read, a named column of titles is missing, or no column holds item ids.
    """
    if isinstance(source, str) and source in NAMED_SOURCES:
        return NAMED_SOURCES[source].titles()
    table = open_table(source, split, **form)
    if title_column is None and not has_usual_name(table.names, "title"):
        return None
    title = recognise_column(table.names, "title", table.source, title_column)
    item = recognise_item_column(table.names, table.source, item_column)
    frame = table.load([item, title]).drop_nulls().unique(item, keep="first", maintain_order=True)
    if frame.height == 0:
        return None
    return dict(zip(read_ids(frame[item], table).to_list(), frame[title].cast(pl.String).to_list(), strict=True))


def read_given_split(train: Any, validation: Any, test: Any, **reading: Any) -> Interactions:
    """The interactions of a training, a validation (or None) and a test file in one table.

    The column `part` (Int8) is 0 for training, 1 for validation and 2 for test. Ids that are integers in one file and
    text in another become text in all files. `reading` are options of `read_interactions` for all files.

    Raises:
        DataError: As in `read_interactions`, or the times of some files are dates and those of others numbers.
    """
    sources = {0: train, 1: validation, 2: test}
    files = {part: load_source(source, **reading) for part, source in sources.items() if source is not None}
    first = files[0]
    for other in files.values():
        if other.has_dates != first.has_dates:
            dates, numbers = (other, first) if other.has_dates else (first, other)
            raise DataError(f"The times of {dates.source} are dates, but those of {numbers.source} are numbers.")
    frames = [file.frame.with_columns(part=pl.lit(part, pl.Int8)) for part, file in files.items()]
    for column in ("user_id", "item_id"):
        if len({frame[column].dtype for frame in frames}) > 1:
            frames = [frame.with_columns(pl.col(column).cast(pl.String)) for frame in frames]
    notes = [f"{file.source}: {note}" for file in files.values() for note in file.notes]
    return Interactions(
        frame=pl.concat(frames, how="vertical_relaxed"),
        columns=first.columns,
        source=" + ".join(file.source for file in files.values()),
        has_dates=first.has_dates,
        notes=tuple(notes),
    )
