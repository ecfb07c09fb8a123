"""Reads a table of items and recognises in its columns ids, titles, text, categories, numbers, dates and vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError, nearest_names
from ..terminal import printable
from .columns import base_name, has_usual_name, is_usual_name, plain_name, recognise_column, recognise_item_column
from .ids import ids_of_type, read_ids
from .readers import Table, open_table
from .rows import Rows, first_of
from .times import date_times

__all__ = ["KINDS", "ItemColumn", "ItemTable", "describe_items", "read_items"]

KINDS = {"text": "text", "categories": "categories", "number": "numbers", "date": "dates", "vector": "vectors"}
# Names without upper case, underscores, hyphens and blanks, as `columns.USUAL_NAMES` has them.
TEXT_NAMES = frozenset(
    (
        *("description", "desc", "detaildesc", "text", "summary", "abstract", "body", "content", "overview", "plot"),
        *("features", "feature", "subtitle", "synopsis", "keywords", "about", "details", "caption"),
    )
)
CATEGORY_NAMES = frozenset(
    (
        *("category", "categories", "genre", "genres", "tag", "tags", "topic", "topics", "brand", "brands"),
        *("manufacturer", "store", "shop", "seller", "color", "colour", "colors", "colours", "size", "type", "kind"),
        *("class", "department", "section", "gender", "season", "style", "material", "language", "country"),
        *("publisher", "label", "producttype", "productgroup", "productgroupname", "maincategory", "maincat"),
        *("subcategory", "indexname", "platform", "status"),
    )
)
COMPANIES = frozenset(("brand", "brands", "manufacturer", "store", "shop", "seller", "publisher"))  # "Smith, Inc."
CATEGORY_NAME = r"(^|[^a-z])(id|code)$|[a-z](Id|ID|Code)$"  # integers in a column named so are no numbers
SEPARATORS = ("|", " > ", ";", ",")
RECBOLE_KINDS = {
    "token": ("categories", None),
    "token_seq": ("categories", " "),
    "float": ("number", None),
    "float_seq": ("vector", " "),
}
LISTS_AS_TEXT = "[]"  # the separator of cells such as "['Beauty', 'Soap']"
QUOTED = r"'[^']*'|\"[^\"]*\""
PROBE = 10_000  # rows by which text is told from categories
ONE_VALUE_EACH = 0.95  # with at least this share of different single words, a column is another id of the items
SENTENCE = 4  # words of the elements of a list, on average, above which they are sentences
PRICE = r"^[$€£¥]\s?[0-9,]*\.?[0-9]+$"
SURELY_ID = 20  # rows that are needed to tell that


@dataclass(frozen=True)
class ItemColumn:
    """A column of features.

    Args:
        name: Its name in the table.
        kind: `"text"`, `"categories"`, `"number"`, `"date"` or `"vector"`.
        separator: What stands between the categories (or the numbers of a vector) of a cell of text; `"[]"` for cells
            that are written like a list, None for cells with a single one.
    """

    name: str
    kind: str
    separator: str | None = None


@dataclass(frozen=True)
class ItemTable:
    """Items with what is known of them; every value may be missing.

    Args:
        frame: `item_id` (Int64 or String, each id once, in sorted order), and under the names of the table the columns
            of features: text as String, categories as List(String), numbers and dates (seconds since 1970 in UTC) as
            Float64, vectors as Array(Float32). null where the value is missing.
        columns: The columns of features.
        item_column: Name of the column of ids in the table.
        title_column: Name of the column of titles, or None.
        source: Short display name.
        repeated_rows: Rows that were exact copies of another one and were left out.
        differing_rows: Rows that said something else than the first row of their item, and were left out.
        notes: Sentences about what was left out or is not used.
        titles: Titles by raw id, of the items that have one; None without a column of titles.
        table: What the columns were read from.
    """

    frame: pl.DataFrame
    columns: tuple[ItemColumn, ...]
    item_column: str
    title_column: str | None
    source: str
    repeated_rows: int
    differing_rows: int
    notes: tuple[str, ...]
    titles: dict[Any, str] | None
    table: Table

    def __len__(self) -> int:
        return self.frame.height

    def describe(self) -> str:
        """The recognised columns, and how many items have each of them, in a few lines of text."""
        return describe_items(self.summary)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The same as a dictionary, which JSON can hold."""
        return {
            "source": self.source,
            "item_column": base_name(self.item_column),
            "title_column": None if self.title_column is None else base_name(self.title_column),
            "rows": len(self),
            "columns": [
                {
                    "name": base_name(column.name),
                    "kind": column.kind,
                    "separator": column.separator,
                    "items": len(self) - self.frame[column.name].null_count(),
                }
                for column in self.columns
            ],
            "repeated_rows": self.repeated_rows,
            "differing_rows": self.differing_rows,
            "notes": list(self.notes),
        }

    def read_as(self, columns: Sequence[ItemColumn]) -> ItemTable:
        """The same items with the columns of another table, as an encoder learned them; a column may be missing.

        Raises:
            DataError: No column is there, or one does not hold what it held there.
        """
        there = tuple(column for column in columns if column.name in self.table.names)
        if not there:
            names = ", ".join(repr(column.name) for column in columns)
            raise DataError(f"{self.source} has none of the columns of which the features were made: {names}.")
        if there == self.columns:
            return self
        again = _read(self.table, self.item_column, self.title_column, there)
        return again if len(again) == len(self) else again.take(again.rows_of(self.frame["item_id"]))

    def rows_of(self, item_ids: Sequence[Any] | pl.Series) -> np.ndarray:
        """int64 (n,): for each of `item_ids` its row in `frame`, -1 where there is none.

        Raises:
            DataError: All ids of the table are text but `item_ids` are integers, or the table has none of them.
        """
        wanted = pl.Series("item_id", item_ids, pl.String if isinstance(item_ids[0], str) else pl.Int64)
        id_type = "string" if wanted.dtype == pl.String else "integer"
        ids = ids_of_type(self.frame["item_id"], id_type)
        if ids.null_count() == len(ids):
            raise DataError(
                f"The item ids of {self.source} are text such as {self.frame['item_id'][0]!r}, but those of the "
                "vocabulary are integers."
            )
        rows = pl.DataFrame({"item_id": ids, "row": np.arange(len(ids))}).drop_nulls()
        found = pl.DataFrame({"item_id": wanted}).join(rows, "item_id", "left", maintain_order="left")
        if found["row"].null_count() == len(wanted):
            raise DataError(
                f"{self.source} has none of the {len(wanted):,} items of the vocabulary: its ids are such as "
                f"{self.frame['item_id'][0]!r}, those of the vocabulary such as {wanted[0]!r}."
            )
        return found["row"].fill_null(-1).to_numpy()

    def take(self, rows: np.ndarray) -> ItemTable:
        """The table with these rows of `frame`."""
        return replace(self, frame=self.frame[rows])


def describe_items(summary: Mapping[str, Any]) -> str:
    """The summary of an `ItemTable`, with the counts of a vocabulary where it has them, in a few lines of text."""
    roles = f"item = {summary['item_column']!r}"
    if summary["title_column"] is not None:
        roles += f", title = {summary['title_column']!r}"
    kinds = []
    for kind, plural in KINDS.items():
        of_kind = [column for column in summary["columns"] if column["kind"] == kind]
        if of_kind:
            kinds.append(f"{plural}: " + ", ".join(map(_described, of_kind)))
    lines = [f"Items     {summary['source']}: {roles}", f"          {summary['rows']:,} items; {'; '.join(kinds)}"]
    if "not_in_vocabulary" in summary:
        lines.append(
            f"          of the vocabulary {summary['known']:,} items have features, {summary['unknown']:,} have none; "
            f"{summary['not_in_vocabulary']:,} items of the table are not in it"
        )
        lines.append(f"          a vector of {summary['width']:,} numbers each, text by {summary['text_encoder']}")
    notes = list(summary["notes"])
    if summary["repeated_rows"]:
        notes.append(f"Rows that are exact copies of another row and were left out: {summary['repeated_rows']:,}.")
    if summary["differing_rows"]:
        notes.append(
            "Rows that differ from an earlier row of the same item and were left out, because the first row of an item "
            f"counts: {summary['differing_rows']:,}."
        )
    return "\n".join([*lines, *(f"Note      {printable(note)}" for note in notes)])


def _described(column: Mapping[str, Any]) -> str:
    parted = "" if column["separator"] in (None, LISTS_AS_TEXT) else f", parted at {column['separator']!r}"
    return f"{column['name']!r} ({column['items']:,}{parted})"


def read_items(
    source: Any,
    *,
    item_column: str | None = None,
    title_column: str | None = None,
    columns: Sequence[str] | None = None,
    **form: Any,
) -> ItemTable:
    """Reads a table with a row for each item.

    What a column holds follows from its type, its name and its values: text, categories (one a cell or several),
    numbers, dates or vectors. Columns that tell nothing (empty, another id, addresses, objects) are not used, and a
    note names them. A missing value is allowed everywhere; a row without an item id is left out.

    Args:
        source: What `open_table` takes: a path, a pandas or polars frame, a pyarrow table or a `datasets.Dataset`.
        item_column: Name of the column of item ids; where the table does not have it, one with a usual name is taken.
        title_column: Name of the column of titles; None recognises the usual names.
        columns: The columns of features to use; None uses all that tell something.
        form: `split`, `encoding`, `separator` and `quote` of `open_table`.

    Raises:
        DataError: The table or a named column is missing, no column holds item ids, none can be used as a feature,
            vectors have different lengths, or a vector or number is not finite.
    """
    table = open_table(source, **form)
    item = recognise_item_column(table.names, table.source, item_column)
    title = None
    if title_column is not None or has_usual_name(table.names, "title"):
        title = recognise_column(table.names, "title", table.source, title_column)
    named = None if columns is None else [_named(table, name) for name in columns]
    return _read(table, item, title, named)


def _named(table: Table, name: str) -> str:
    found = next((column for column in table.names if name in (column, base_name(column))), None)
    if found is None:
        raise DataError(f"{table.source} has no column {name!r}; {nearest_names(name, table.names)}")
    return found


def _read(table: Table, item: str, title: str | None, wanted: Sequence[str] | Sequence[ItemColumn] | None) -> ItemTable:
    """Reads the items with the wanted columns: names, or what a column is known to hold; None for all others."""
    known = {column.name: column for column in wanted or () if isinstance(column, ItemColumn)}
    names = [column if isinstance(column, str) else column.name for column in wanted or table.names]
    names = [name for name in dict.fromkeys(names) if name != item]
    rows = Rows(table, [item, *names, *([] if title is None else [title])])
    texts = [name for name, kind in rows.frame.schema.items() if kind == pl.String]
    rows.strip(texts if table.is_text else [item])
    rows.blank_missing(rows.frame.columns)
    has_id = rows.frame[item].is_not_null()
    if not has_id.all():
        rows.notes.append(f"Rows without an item id, which were left out: {int((~has_id).sum()):,}.")
        rows.filter(has_id)
    ids = read_ids(rows.frame[item], table, rows.place)
    found, features = [], {"item_id": ids}
    unused: dict[str, list[str]] = {}
    for name in names:
        column = rows.frame[name]
        use = known.get(name) or _recognise(column, table.is_text, name == title, wanted is not None)
        if isinstance(use, str):
            unused.setdefault(use, []).append(base_name(name))
        else:
            found.append(use)
            features[name] = _converted(column, use, rows, table.source)
    if not found:
        raise DataError(
            f"{table.source} has no column that tells something of its items beside {base_name(item)!r}: text, "
            f"categories, numbers, dates or vectors. It has: {', '.join(map(repr, table.names))}."
        )
    for reason, columns in unused.items():
        rows.notes.append(f"Not used, because they {reason}: {', '.join(map(repr, columns))}.")
    frame = pl.DataFrame(features)
    titled = None
    if title is not None:
        frame = frame.with_columns(rows.frame[title].cast(pl.String).alias("title of the item"))
    before = frame.height
    frame = frame.unique(maintain_order=True)
    repeated = before - frame.height
    frame = frame.unique("item_id", keep="first", maintain_order=True)
    differing = before - repeated - frame.height
    frame = frame.sort("item_id")
    if title is not None:
        pairs = frame.select("item_id", "title of the item").drop_nulls()
        titled = dict(zip(pairs["item_id"].to_list(), pairs["title of the item"].to_list(), strict=True)) or None
        frame = frame.drop("title of the item")
    return ItemTable(
        frame=frame,
        columns=tuple(found),
        item_column=item,
        title_column=title,
        source=table.source,
        repeated_rows=repeated,
        differing_rows=differing,
        notes=tuple(rows.notes),
        titles=titled,
        table=table,
    )


# ---------------------------------------------------------------------- recognising


def _recognise(column: pl.Series, is_text: bool, is_title: bool, is_named: bool) -> ItemColumn | str:
    """What a column holds, or why it is not used."""
    name, kind = column.name, column.dtype
    if column.null_count() == len(column):
        return "are empty"
    if name == "item_id":
        return "are other ids of the items"
    if is_usual_name(name, "user") and not is_named:
        return "name users"
    if is_title:
        return ItemColumn(name, "text")
    if name != base_name(name) and is_text:
        return ItemColumn(name, *RECBOLE_KINDS[name.rpartition(":")[2].strip()])
    if kind == pl.String:
        return _recognise_text(column, is_text, is_named)
    if kind == pl.Boolean or (kind.is_integer() and _names_categories(base_name(name))):
        return ItemColumn(name, "categories")
    if kind.is_numeric() or kind == pl.Duration:
        return ItemColumn(name, "number")
    if kind == pl.Date or kind == pl.Datetime:
        return ItemColumn(name, "date")
    if isinstance(kind, (pl.List, pl.Array)):
        inner = kind.inner
        while isinstance(inner, (pl.List, pl.Array)):
            inner = inner.inner
        if inner == kind.inner and (inner.is_float() or (isinstance(kind, pl.Array) and inner.is_numeric())):
            return ItemColumn(name, "vector")
        if inner == pl.String and inner == kind.inner and _is_text(column):
            return ItemColumn(name, "text")
        if inner.is_integer() or inner in (pl.String, pl.Categorical, pl.Enum):
            return ItemColumn(name, "categories")
    return f"hold {str(kind).partition('(')[0]}"


def _names_categories(name: str) -> bool:
    return plain_name(name) in CATEGORY_NAMES or re.search(CATEGORY_NAME, name) is not None


def _is_text(lists: pl.Series) -> bool:
    """Whether the elements of a column of lists are sentences and not categories."""
    words = lists.drop_nulls().head(PROBE).explode().drop_nulls().str.count_matches(r"\s+") + 1
    return plain_name(base_name(lists.name)) in TEXT_NAMES or (len(words) > 0 and words.to_numpy().mean() > SENTENCE)


def _recognise_text(column: pl.Series, is_text: bool, is_named: bool) -> ItemColumn | str:
    """What a column of text holds: by its form, then by its name, and else by how often its values repeat."""
    name, cells = column.name, column.drop_nulls().head(PROBE)
    plain = plain_name(base_name(name))
    if plain in TEXT_NAMES:
        return ItemColumn(name, "text")
    if (cells.str.starts_with("[") & cells.str.ends_with("]")).all():
        numbers = _parts(cells, LISTS_AS_TEXT).explode().drop_nulls().cast(pl.Float64, strict=False)
        is_vector = bool(cells.str.contains(".", literal=True).any()) and len(numbers) and not numbers.null_count()
        return ItemColumn(name, "vector" if is_vector else "categories", LISTS_AS_TEXT)
    all_cells = column.drop_nulls()
    if is_text and not all_cells.cast(pl.Float64, strict=False).null_count() and not _names_categories(name):
        return ItemColumn(name, "number")
    if not date_times(cells).null_count() and not date_times(all_cells).null_count():
        return ItemColumn(name, "date")
    if cells.str.contains(PRICE).all() and all_cells.str.contains(PRICE).all():
        return ItemColumn(name, "number")
    if cells.str.contains("^https?://").all() and not is_named:
        return "hold addresses"
    words = cells.str.count_matches(r"\s+").to_numpy().mean() + 1
    different = cells.n_unique()
    separator = _separator(cells)
    if plain in CATEGORY_NAMES or 2 * different <= len(cells):
        return ItemColumn(name, "categories", separator)
    if separator is not None:
        parts = _parts(cells, separator).explode()
        if 2 * parts.n_unique() <= len(parts) and words <= 3 * len(parts) / len(cells):
            return ItemColumn(name, "categories", separator)
    if words < 1.05:
        if different >= ONE_VALUE_EACH * len(cells) and len(cells) >= SURELY_ID and not is_named:
            return "have another value for each item"
        return ItemColumn(name, "categories")
    return ItemColumn(name, "text")


def _separator(cells: pl.Series) -> str | None:
    """What stands between the categories of a cell: each part then stands in more cells than a whole cell did."""
    each = len(cells) / cells.n_unique()
    for separator in SEPARATORS:
        having = int(cells.str.contains(separator, literal=True).sum())
        if not having or (separator in ";," and 2 * having < len(cells)):
            continue
        if separator == "," and plain_name(base_name(cells.name)) in COMPANIES:
            continue
        parts = _parts(cells, separator).explode().drop_nulls()
        if len(parts) and len(parts) / parts.n_unique() >= each:
            return separator
    return None


# ---------------------------------------------------------------------- converting


def _parts(cells: pl.Series, separator: str) -> pl.Series:
    """The parts of cells of text, without blanks around them and without empty ones."""
    if separator != LISTS_AS_TEXT:
        return cells.str.split(separator).list.eval(pl.element().str.strip_chars().replace("", None)).list.drop_nulls()
    cell = pl.col(cells.name)
    quoted = cell.str.extract_all(QUOTED).list.eval(pl.element().str.slice(1, pl.element().str.len_chars() - 2))
    is_quoted = cell.str.contains(r"['\"]")
    parts = pl.when(is_quoted).then(quoted).otherwise(cell.str.extract_all(r"[^\[\],\s]+"))
    return pl.DataFrame(cells).select(parts.alias(cells.name)).to_series()


def _converted(column: pl.Series, use: ItemColumn, rows: Rows, source: str) -> pl.Series:
    """A column in the type of its kind, see `ItemTable.frame`.

    Raises:
        DataError: It does not hold what it is said to hold.
    """
    where = f"Column {base_name(column.name)!r} of {source}"
    if use.kind == "text":
        if column.dtype == pl.List(pl.String):
            column = column.list.join(" ", ignore_nulls=True).replace("", None)
        if isinstance(column.dtype, (pl.List, pl.Array, pl.Struct)):
            raise DataError(f"{where} has the type {column.dtype}, but the features were made of text.")
        return column.cast(pl.String)
    if use.kind == "categories":
        return _categories(column, use.separator)
    if use.kind == "vector":
        return _vectors(column, use.separator, where, rows)
    if use.kind == "date":
        times = date_times(column) if column.dtype == pl.String else column
        if not (times.dtype == pl.Date or times.dtype == pl.Datetime):
            raise DataError(f"{where} has the type {column.dtype}, but the features were made of dates.")
        numbers = times.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    else:
        if column.dtype == pl.Duration:
            column = column.dt.total_microseconds() / 1e6
        if column.dtype == pl.String:
            plain = pl.col(column.name).str.replace_all(r"[$€£¥,\s]", "")
            prices = pl.when(pl.col(column.name).str.contains(PRICE)).then(plain).otherwise(pl.col(column.name))
            column = pl.DataFrame(column).select(prices.alias(column.name)).to_series()
        numbers = column if column.dtype.is_nested() else column.cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & column.is_not_null()
    if numbers.dtype != pl.Float64 or wrong.any():
        what = f"({first_of(column, wrong, rows.place)})" if wrong.any() else f"but {column.dtype}"
        raise DataError(f"{where} does not hold {KINDS[use.kind]} {what}.")
    assert isinstance(numbers, pl.Series)
    numbers = numbers.fill_nan(None)
    if (infinite := numbers.is_infinite()).any():
        raise DataError(f"{where} holds a number that is not finite: {first_of(numbers, infinite, rows.place)}.")
    return numbers


def _categories(column: pl.Series, separator: str | None) -> pl.Series:
    if column.dtype == pl.String and separator is not None:
        lists = _parts(column, separator)
    elif isinstance(column.dtype, (pl.List, pl.Array)):
        lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        while isinstance(getattr(lists.dtype, "inner", None), (pl.List, pl.Array)):
            lists = lists.list.eval(pl.element().explode())
        lists = lists.cast(pl.List(pl.String))
    else:
        lists = pl.DataFrame(column).select(pl.concat_list(pl.col(column.name).cast(pl.String))).to_series()
    lists = lists.list.drop_nulls().list.unique(maintain_order=True)
    known = pl.when(pl.col(column.name).list.len() > 0).then(pl.col(column.name))
    return pl.DataFrame(lists.alias(column.name)).select(known).to_series()


def _vectors(column: pl.Series, separator: str | None, where: str, rows: Rows) -> pl.Series:
    if column.dtype == pl.String:
        column = _parts(column, separator or LISTS_AS_TEXT)
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List) or column.dtype.inner.is_nested():
        raise DataError(f"{where} has the type {column.dtype}, but vectors are lists of numbers.")
    lengths = column.list.len()
    width = int(lengths.drop_nulls()[0])
    other = lengths.is_not_null() & (lengths != width)
    if other.any():
        row = int(other.arg_true()[0])
        raise DataError(
            f"{where} holds vectors of different lengths: {width} numbers, but {lengths[row]} in {rows.place(row)}."
        )
    if not width:
        raise DataError(f"{where} holds vectors of no length.")
    wide = column.list.eval(pl.element().cast(pl.Float64, strict=False))
    broken = (~wide.list.eval(pl.element().is_finite().fill_null(False)).list.all()).fill_null(False)
    if broken.any():
        row = int(broken.arg_true()[0])
        raise DataError(f"{where} holds a vector with a value that is no finite number, in {rows.place(row)}.")
    return wide.cast(pl.List(pl.Float32)).list.to_array(width)
