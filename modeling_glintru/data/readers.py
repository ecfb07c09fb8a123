"""Opens any kind of table: names first, then only the columns that are wanted, as a polars frame."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import DataError
from ..hub_errors import hub_advice

__all__ = ["SUFFIXES", "Table", "open_table"]

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".inter", ".item")
TEXT_SUFFIXES = {".csv", ".tsv", ".inter", ".item"}
JSON_PROBE_LINES = 1000
STREAMED_BYTES = 2**30  # a Hub data set above this size is streamed
STREAMED_ROWS = 100_000  # at a time


@dataclass(frozen=True)
class Table:
    """A table whose columns are not read yet.

    Args:
        names: Names of the columns, in order.
        load: Reads the named columns into a polars frame, rows in the table's own order.
        source: Short display name: a file name without its folders, a Hub name, or the kind of object.
        is_text: Every cell is text (a CSV file): numbers are still to be recognised.
        has_no_time: The format has no times: the order of the rows is the order in time.
    """

    names: tuple[str, ...]
    load: Callable[[Sequence[str]], pl.DataFrame]
    source: str
    is_text: bool = False
    has_no_time: bool = False

    def place(self, row: int) -> str:
        """Where a row (from 0) stands, for people."""
        return f"row {row + 1:,}"


def open_table(source: Any, split: str = "train") -> Table:
    """Opens a file, a frame, a data set, or a data set of the Hub.

    Args:
        source: A path (`SUFFIXES`, the text formats also with `.gz`), a pandas or polars frame, a pyarrow table, a
            `datasets.Dataset` or `IterableDataset`, the name of a Hub data set (`owner/name` or `owner/name:config`,
            only when there is no such file; above 1 GB it is streamed), or `hf://datasets/owner/name/file`.
        split: Which split of a data set that has several.

    Raises:
        DataError: The source is missing, empty, unreadable, or of an unknown kind.
    """
    if isinstance(source, (str, Path)):
        return _open_named(str(source), split)
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        frame = source
        return Table(tuple(frame.columns), lambda names: frame.select(list(names)), "polars frame")
    if isinstance(source, pa.Table):
        return Table(tuple(source.column_names), lambda names: _from_arrow(source.select(list(names))), "arrow table")
    kind = type(source).__module__.partition(".")[0]
    if kind == "pandas" and hasattr(source, "columns"):
        return Table(tuple(map(str, source.columns)), lambda names: _from_pandas(source, names), "pandas frame")
    if kind == "datasets":
        return _open_dataset(source, split, "datasets.Dataset")
    raise DataError(
        f"Interactions cannot be read from a {type(source).__name__}; give a path, a pandas or polars frame, "
        "a datasets.Dataset, or the name of a Hub data set."
    )


def _open_named(name: str, split: str) -> Table:
    if name.startswith("hf://"):
        return _open_file(_hub_file(name))
    path = Path(name).expanduser()
    if path.is_dir():
        raise DataError(f"{path.name or name} is a folder, but a file is needed: {', '.join(SUFFIXES)}.")
    if path.is_file():
        return _open_file(path)
    if name.count("/") == 1 and "\\" not in name and not name.startswith((".", "/", "~")) and not _suffix(path)[0]:
        return _open_hub_dataset(name, split)
    raise DataError(f"There is no file {name!r}; give a table ({', '.join(SUFFIXES)}) or a Hub data set owner/name.")


def _suffix(path: Path) -> tuple[str, bool]:
    """The known suffix of a path ("" where it has none), and whether the file is compressed."""
    suffix = path.suffix.lower()
    compressed = suffix == ".gz"
    if compressed:
        suffix = Path(path.stem).suffix.lower()
    return (suffix if suffix in SUFFIXES else ""), compressed


def _open_file(path: Path) -> Table:
    suffix, compressed = _suffix(path)
    if not suffix or (compressed and suffix == ".parquet"):
        raise DataError(
            f"{path.name} has a suffix that is not known; known are {', '.join(SUFFIXES)} (text also as .gz)."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty.")
    if suffix in TEXT_SUFFIXES:
        return _open_text(path, suffix, compressed)
    if suffix == ".parquet":
        return _open_parquet(path)
    return _open_json_lines(path, compressed)


def _open_text(path: Path, suffix: str, compressed: bool) -> Table:
    try:
        with (gzip.open if compressed else open)(path, "rb") as file:
            header = file.readline().decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, "a table of text", error) from error
    separator = "\t"
    if suffix == ".csv":
        # Many a .csv is separated by something else; the header tells.
        separator = max(",;\t|", key=lambda mark: (header.count(mark), mark == ","))

    def load(names: Sequence[str] | None, rows: int | None = None) -> pl.DataFrame:
        try:
            # Everything as text: an id such as 007 must stay what it is.
            columns = None if names is None else list(names)
            return pl.read_csv(path, columns=columns, separator=separator, infer_schema=False, n_rows=rows)
        except pl.exceptions.NoDataError as error:
            raise DataError(f"{path.name} is empty.") from error
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(path, "a table of text", error) from error

    return Table(tuple(load(None, rows=0).columns), load, path.name, is_text=True)


def _open_parquet(path: Path) -> Table:
    def guarded(read: Callable[[], Any]) -> Any:
        try:
            return read()
        # polars panics (an exception of its own, below BaseException) on some damaged files.
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _unreadable(path, "Parquet", error) from error

    names = guarded(lambda: pl.read_parquet_schema(path))
    return Table(tuple(names), lambda wanted: guarded(lambda: pl.read_parquet(path, columns=list(wanted))), path.name)


def _open_json_lines(path: Path, compressed: bool) -> Table:
    try:
        with (gzip.open if compressed else open)(path, "rt", encoding="utf-8-sig") as file:
            lines = [line for line in itertools.islice(file, JSON_PROBE_LINES) if line.strip()]
        is_list = bool(lines) and lines[0].lstrip().startswith("[")
        rows = [] if is_list else [json.loads(line) for line in lines]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(path, "JSON lines", error) from error
    if is_list:
        raise DataError(f"{path.name} is one JSON list; JSON lines are needed, one object a line.")
    if not rows:
        raise DataError(f"{path.name} is empty.")
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path.name} is not JSON lines: each line must be one object.")
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, lambda wanted: _load_json_lines(path, rows, wanted), path.name)


def _load_json_lines(path: Path, probe: list[dict[str, Any]], names: Sequence[str]) -> pl.DataFrame:
    from pyarrow import json as arrow_json

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fields = []
    for name in names:
        found = {type(row[name]) for row in probe if row.get(name) is not None}
        if found == {int, float}:
            found = {float}
        if len(found) > 1 or not found <= set(kinds):
            names_of_types = ", ".join(sorted(kind.__name__ for kind in found))
            raise DataError(
                f"Column {name!r} of {path.name} mixes or nests types ({names_of_types}); "
                "ids are all text or all integers, times all of one kind."
            )
        fields.append(pa.field(name, kinds[found.pop()] if found else pa.string()))
    # Only the wanted columns, with fixed types: whatever else the lines hold is never parsed into memory.
    options = arrow_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            return _from_arrow(arrow_json.read_json(stream, parse_options=options))
    except (pa.ArrowException, OSError) as error:
        if "changed from" in str(error) or "Failed of conversion" in str(error):
            raise DataError(
                f"{path.name} mixes types in one column ({_first_line(error)}); ids are all text or all integers, "
                "times all of one kind."
            ) from error
        raise _unreadable(path, "JSON lines", error) from error


def _from_pandas(frame: Any, names: Sequence[str]) -> pl.DataFrame:
    from pandas.api.types import infer_dtype

    columns = {}
    for name in names:
        places = [place for place, column in enumerate(frame.columns) if str(column) == name]
        if len(places) > 1:
            raise DataError(f"The pandas frame has {len(places)} columns named {name!r}.")
        column = frame.iloc[:, places[0]]
        if column.dtype == object and (kind := infer_dtype(column, skipna=True)).startswith("mixed"):
            raise DataError(
                f"Column {name!r} of the pandas frame holds mixed types ({kind}); ids are all text or all integers: "
                f"convert it first, for example with .astype(str)."
            )
        try:
            columns[name] = pl.from_pandas(column.reset_index(drop=True), nan_to_null=False)
        except Exception as error:
            raise DataError(f"Column {name!r} of the pandas frame cannot be read ({_first_line(error)}).") from error
    return pl.DataFrame(columns)


def _from_arrow(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _open_dataset(source: Any, split: str, display: str) -> Table:
    import datasets

    if isinstance(source, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        if split not in source:
            known = ", ".join(map(repr, source))
            raise DataError(f"{display} has no split {split!r} (argument split); it has: {known}.")
        source = source[split]
    if isinstance(source, datasets.IterableDataset):
        names = source.column_names or list(next(iter(source.take(1)), {}))
        return Table(tuple(names), functools.partial(_streamed, source), display)
    if not isinstance(source, datasets.Dataset):
        raise DataError(f"A {type(source).__name__} cannot be read; give a datasets.Dataset.")
    return Table(
        tuple(source.column_names),
        lambda names: _from_arrow(source.select_columns(list(names)).with_format("arrow")[:]),
        display,
    )


def _streamed(source: Any, names: Sequence[str]) -> pl.DataFrame:
    """The columns of a streamed data set, a batch of rows at a time: what is not asked for is never kept."""
    rows = source.select_columns(list(names)).with_format("arrow")
    parts = [_from_arrow(part) for part in rows.iter(batch_size=STREAMED_ROWS)]
    return pl.concat(parts) if parts else pl.DataFrame({name: [] for name in names})


def _is_large(repo: str) -> bool:
    """Whether a data set is streamed instead of copied to this machine; not where the Hub does not tell its size."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().dataset_info(repo, files_metadata=True).siblings or []
    except Exception:  # offline, or no such repository: loading says what is wrong
        return False
    return sum(file.size or 0 for file in files) > STREAMED_BYTES


def _open_hub_dataset(name: str, split: str) -> Table:
    import datasets

    repo, _, config = name.partition(":")
    options = {"streaming": True} if _is_large(repo) else {}
    try:
        loaded = datasets.load_dataset(repo, config or None, **options)
    except Exception as error:
        raise DataError(
            f"There is no file {name!r}, and it cannot be loaded as a Hub data set either"
            f"{_advice(_refusal(repo) or error, repo)} ({_first_line(error)})."
        ) from error
    return _open_dataset(loaded, split, name)


def _hub_file(url: str) -> Path:
    from huggingface_hub import hf_hub_download

    parts = url.removeprefix("hf://").split("/")
    if len(parts) < 4 or parts[0] != "datasets":
        raise DataError(f"{url!r} is not understood; the form is hf://datasets/owner/name/file.")
    repo, _, revision = f"{parts[1]}/{parts[2]}".partition("@")
    try:
        return Path(hf_hub_download(repo, "/".join(parts[3:]), repo_type="dataset", revision=revision or None))
    except Exception as error:
        raise DataError(f"{url!r} cannot be had from the Hub{_advice(error, repo)} ({_first_line(error)}).") from error


def _advice(error: BaseException, repo: str) -> str:
    advice = hub_advice(error, repo)
    return "" if advice is None else f": {advice}"


def _refusal(repo: str) -> Exception | None:
    """What the Hub says when it is asked for a data set, which `datasets` keeps to itself; None where all is well."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(repo, repo_type="dataset")
    except Exception as error:
        return error
    return None


def _unreadable(path: Path, kind: str, error: BaseException) -> DataError:
    return DataError(f"{path.name} cannot be read as {kind} ({_first_line(error)}).")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
