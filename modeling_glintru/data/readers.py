"""Opens any kind of table: names first, then only the columns that are wanted, as a polars frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import DataError
from .files import JSON_SUFFIXES, SUFFIXES, TEXT_SUFFIXES, check_encoding, find_files, suffix_of
from .frames import from_arrow, from_pandas
from .hub_tables import hub_file, open_dataset, open_hub_dataset
from .json_lines import open_json_lines
from .parquet_files import open_parquet
from .table import Table
from .text_files import open_text
from .text_layout import check_text_options

__all__ = ["SUFFIXES", "Table", "open_table"]


def open_table(
    source: Any,
    split: str = "train",
    *,
    encoding: str | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quote: str | None = None,
) -> Table:
    """Opens a file, part files, a frame, a data set, or a data set of the Hub.

    No row of a file of text vanishes, shifts or merges with another: every row has as many cells as the header, or
    the file is refused, when its columns are loaded, with the number of the line and the way out.

    Args:
        source: A path (`SUFFIXES`; text and JSON lines also with `.gz`, `.bz2`, `.xz`, `.zst`), a folder or a pattern
            (`events/part-*.csv`) of part files, a pandas or polars frame, a pyarrow table, a `datasets.Dataset` or
            `IterableDataset`, the name of a Hub data set (`owner/name` or `owner/name:config`, only when there is no
            such file; above 1 GB it is streamed), or `hf://datasets/owner/name/file`.
        split: Which split of a data set that has several.
        encoding: Encoding of text and JSON lines, any codec of Python; by default UTF-8, or what a byte order mark
            says.
        separator: What stands between the cells of text, one character or several, or one of the words tab, comma,
            semicolon, pipe, blank; one blank stands for any number of blanks and tabs. By default it is recognised.
        columns: Names of the columns of text without a header. By default they are recognised in `.dat` and `.txt`
            of MovieLens (user, item, rating, time) and of SASRec (user, item), and stand in the first line otherwise.
        quote: `"none"` where quotes are text, or the character that quotes cells. By default `"`; in files that are
            not `.csv` quotes are text as soon as one of them is not properly written.

    Raises:
        DataError: The source is missing, empty, unreadable, or of an unknown kind, or an option is not for it.
    """
    given = {"encoding": encoding, "separator": separator, "columns": columns, "quote": quote}
    options = {f"--{name}" for name, value in given.items() if value is not None}
    if isinstance(source, (str, Path)):
        files = find_files(str(hub_file(source) if isinstance(source, str) and source.startswith("hf://") else source))
        if files is not None and files.suffix in TEXT_SUFFIXES:
            text = check_text_options(check_encoding(encoding), separator, columns, quote)
            return open_text(files.paths, files.suffix, files.source, text)
        if files is not None and files.suffix in JSON_SUFFIXES:
            _refuse_options(options - {"--encoding"}, files.source)
            return open_json_lines(files.paths, files.source, check_encoding(encoding))
        _refuse_options(options, files.source if files else str(source))
        return open_parquet(files.paths, files.source) if files else _open_named(str(source), split)
    _refuse_options(options, f"a {type(source).__name__}")
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        frame = source
        return Table(tuple(frame.columns), lambda names: frame.select(list(names)), "polars frame")
    if isinstance(source, pa.Table):
        return Table(tuple(source.column_names), lambda names: from_arrow(source.select(list(names))), "arrow table")
    kind = type(source).__module__.partition(".")[0]
    if kind == "pandas" and hasattr(source, "columns"):
        return Table(tuple(map(str, source.columns)), lambda names: from_pandas(source, names), "pandas frame")
    if kind == "datasets":
        return open_dataset(source, split, "datasets.Dataset")
    raise DataError(
        f"Interactions cannot be read from a {type(source).__name__}; give a path, a pandas or polars frame, "
        "a datasets.Dataset, or the name of a Hub data set."
    )


def _open_named(name: str, split: str) -> Table:
    is_path = "\\" in name or name.startswith((".", "/", "~")) or suffix_of(Path(name))
    if name.count("/") == 1 and not is_path:
        return open_hub_dataset(name, split)
    raise DataError(f"There is no file {name!r}; give a table ({', '.join(SUFFIXES)}) or a Hub data set owner/name.")


def _refuse_options(options: set[str], source: str) -> None:
    if options:
        raise DataError(
            f"{', '.join(sorted(options))} {'is' if len(options) == 1 else 'are'} for files of text, not for {source}."
        )
