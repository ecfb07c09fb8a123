"""Opens every kind of table: text, JSON lines, Parquet, frames, data sets, and data sets of the Hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..models.loading import hub_advice
from .files import (
    JSON_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    NamedFiles,
    check_encoding,
    find_files,
    find_listed,
    suffix_of,
)
from .json_lines import open_json_lines
from .table import Table, first_line, row_place, unreadable
from .text_files import open_text
from .text_layout import check_text_options

__all__ = ["SUFFIXES", "Table", "open_dataset", "open_table"]

STREAMED_BYTES = 2**30  # A data set of the Hub above this size is streamed.
STREAMED_ROWS = 100_000  # The rows that are read at a time.


def open_table(
    source: Any,
    split: str = "train",
    *,
    encoding: str | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quote: str | None = None,
) -> Table:
    """Opens a file, part files, a frame, a data set, or a data set of the Hub; `docs/data.md` describes them.

    Args:
        source: A path (`SUFFIXES`; text and JSON lines also compressed), a folder or a pattern (`events/part-*.csv`) of
            part files, a list of such paths, a pandas or polars frame, a pyarrow table, a `datasets.Dataset` or
            `IterableDataset`, the name of a Hub data set (`owner/name` or `owner/name:config`; above 1 GB it is
            streamed), or `hf://datasets/owner/name/file`.
        split: Name of the split, of a data set that has several.
        encoding: The encoding of text and JSON lines, any codec of Python; by default UTF-8, or the encoding that a
            byte order mark names.
        separator: What stands between the cells of text: one character or several, or the word tab, comma, semicolon,
            pipe or blank.
        columns: Names of the columns of text without a header.
        quote: The character around quoted cells of text, or `"none"` where quotes are a part of the text.

    Raises:
        DataError: The source is missing, empty, unreadable, or of an unknown kind, or an option is not for it. Rows
            that do not fit are found when columns are loaded.
    """
    given = {"encoding": encoding, "separator": separator, "columns": columns, "quote": quote}
    options = {f"--{name}" for name, value in given.items() if value is not None}
    if isinstance(source, (list, tuple)):
        files: NamedFiles | None = find_listed(source)
        source = files
    elif isinstance(source, (str, Path)):
        files = find_files(str(_hub_file(source) if isinstance(source, str) and source.startswith("hf://") else source))
    if isinstance(source, (str, Path, NamedFiles)):
        if files is not None and files.suffix in TEXT_SUFFIXES:
            text = check_text_options(check_encoding(encoding), separator, columns, quote)
            return open_text(files.paths, files.suffix, files.source, text)
        if files is not None and files.suffix in JSON_SUFFIXES:
            _refuse_options(options - {"--encoding"}, files.source)
            return open_json_lines(files.paths, files.source, check_encoding(encoding))
        _refuse_options(options, files.source if files else str(source))
        return _open_parquet(files.paths, files.source) if files else _open_named(str(source), split)
    _refuse_options(options, f"a {type(source).__name__}")
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        frame = source
        return Table(tuple(frame.columns), lambda names: frame.select(names), "polars frame")
    if isinstance(source, pa.Table):
        return Table(tuple(source.column_names), lambda names: pl.DataFrame(source.select(names)), "arrow table")
    kind = type(source).__module__.partition(".")[0]
    if kind == "pandas" and hasattr(source, "columns"):
        return Table(tuple(map(str, source.columns)), lambda names: _from_pandas(source, names), "pandas frame")
    if kind == "datasets":
        return open_dataset(source, split, "datasets.Dataset")
    raise DataError(
        f"Interactions cannot be read from a {type(source).__name__}; give a path, a pandas or polars frame, "
        "a datasets.Dataset, or the name of a Hub data set."
    )


def _from_pandas(frame: Any, names: Sequence[str]) -> pl.DataFrame:
    """The named columns of a pandas frame.

    Raises:
        DataError: A column holds mixed types.
    """
    from pandas.api.types import infer_dtype, is_list_like

    known = list(map(str, frame.columns))
    columns = {}
    for name in names:
        column = frame.iloc[:, known.index(name)]
        kind = infer_dtype(column, skipna=True) if column.dtype == object else ""
        if kind.startswith("mixed") and not column.dropna().map(is_list_like).all():
            raise DataError(
                f"Column {name!r} of the pandas frame holds mixed types ({kind}); ids are all text or all integers: "
                f"convert it first, for example with .astype(str)."
            )
        try:
            columns[name] = pl.from_pandas(column.reset_index(drop=True), nan_to_null=False)
        except Exception as error:
            raise DataError(f"Column {name!r} of the pandas frame cannot be read ({first_line(error)}).") from error
    return pl.DataFrame(columns)


def _refuse_options(options: set[str], source: str) -> None:
    if options:
        raise DataError(
            f"{', '.join(sorted(options))} {'is' if len(options) == 1 else 'are'} for files of text, not for {source}."
        )


def _open_parquet(paths: Sequence[Path], source: str) -> Table:
    """Opens a Parquet file, or part files of one table.

    Raises:
        DataError: A file is damaged, or the files have different columns.
    """
    columns = [_guarded(path, lambda file: file.schema_arrow.names) for path in paths]
    for path, names in zip(paths, columns, strict=True):
        if set(names) != set(columns[0]):
            raise DataError(
                f"{path.name} has other columns than {paths[0].name}: {names} instead of {columns[0]}; part files need "
                "the same columns."
            )

    def read(names: Sequence[str]) -> pl.DataFrame:
        frames = [_read(path, names) for path in paths]
        for name in frames[0].columns:
            kinds = [frame[name].dtype for frame in frames]
            if len(set(kinds)) > 1 and not all(kind.is_integer() for kind in kinds):
                other = next(place for place, kind in enumerate(kinds) if kind != kinds[0])
                raise DataError(
                    f"Column {name!r} of {source} has several types: {kinds[0]} in {paths[0].name}, but "
                    f"{kinds[other]} in {paths[other].name}; write it with one type in all part files."
                )
        return pl.concat(frames, how="vertical_relaxed")

    def place(row: int) -> str:
        for path in paths:
            height = _guarded(path, lambda file: file.metadata.num_rows)
            if row < height:
                return f"{row_place(row)} of {path.name}"
            row -= height
        raise IndexError(row)

    if len(paths) == 1:
        return Table(tuple(columns[0]), read, source)
    return Table(tuple(columns[0]), read, source, files=tuple(path.name for path in paths), place=place)


def _read(path: Path, names: Sequence[str]) -> pl.DataFrame:
    def rows(file: pq.ParquetFile) -> pl.DataFrame:
        groups = [file.read_row_group(number, names) for number in range(file.num_row_groups)]
        return pl.concat(map(_checked, groups or [file.schema_arrow.empty_table().select(names)]), rechunk=False)

    return _guarded(path, rows)


def _checked(table: pa.Table) -> pl.DataFrame:
    """The rows of an Arrow table from a file that may be damaged; texts that are numbered there are texts again."""
    table.validate(full=True)
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return pl.DataFrame(table.replace_schema_metadata())  # nothing of it is used, and it may be damaged


def _guarded(path: Path, read: Callable[[pq.ParquetFile], Any]) -> Any:
    """What `read` gives of a Parquet file. Arrow reads it, because polars aborts the process on some damaged files."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            return read(file)
    # What Arrow does not find, polars may find; its PanicException is no Exception but a BaseException.
    except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise unreadable(path, "Parquet", error) from error


def open_dataset(source: Any, split: str, display: str) -> Table:
    """Opens a data set, or the named split of one that has several.

    Raises:
        DataError: There is no such split, or the object is no data set.
    """
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
        lambda names: pl.DataFrame(source.select_columns(names).with_format("arrow")[:]),
        display,
    )


def _streamed(source: Any, names: Sequence[str]) -> pl.DataFrame:
    """The named columns of a streamed data set, read by batches of rows."""
    rows = source.select_columns(names).with_format("arrow")
    parts = [pl.DataFrame(part) for part in rows.iter(batch_size=STREAMED_ROWS)]
    return pl.concat(parts) if parts else pl.DataFrame({name: [] for name in names})


def _is_large(repo: str) -> bool:
    """Whether a data set is so large that it is streamed; False where the Hub does not tell its size."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().dataset_info(repo, files_metadata=True).siblings or []
    except Exception:  # Where the Hub cannot be reached or has no such repository, loading gives the error.
        return False
    return sum(file.size or 0 for file in files) > STREAMED_BYTES


def _open_named(name: str, split: str) -> Table:
    """Opens a data set of the Hub, `owner/name` or `owner/name:config`.

    Raises:
        DataError: The name is not of this form, or the data set cannot be loaded.
    """
    is_path = "\\" in name or name.startswith((".", "/", "~")) or suffix_of(Path(name))
    if name.count("/") != 1 or is_path:
        raise DataError(
            f"There is no file {name!r}; give a table ({', '.join(SUFFIXES)}) or a Hub data set owner/name."
        )
    import datasets

    repo, _, config = name.partition(":")
    options = {"streaming": True} if _is_large(repo) else {}
    try:
        loaded = datasets.load_dataset(repo, config or None, **options)
    except Exception as error:
        raise DataError(
            f"There is no file {name!r}, and it cannot be loaded as a Hub data set either"
            f"{_advice(_refusal(repo) or error, repo)} ({first_line(error)})."
        ) from error
    return open_dataset(loaded, split, name)


def _hub_file(url: str) -> Path:
    """Downloads `hf://datasets/owner/name/file` and returns the path of the local copy.

    Raises:
        DataError: The address is not understood, or the file cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    parts = url.removeprefix("hf://").split("/")
    if len(parts) < 4 or parts[0] != "datasets":
        raise DataError(f"{url!r} is not understood; the form is hf://datasets/owner/name/file.")
    repo, _, revision = f"{parts[1]}/{parts[2]}".partition("@")
    try:
        return Path(hf_hub_download(repo, "/".join(parts[3:]), repo_type="dataset", revision=revision or None))
    except Exception as error:
        raise DataError(f"{url!r} cannot be had from the Hub{_advice(error, repo)} ({first_line(error)}).") from error


def _advice(error: BaseException, repo: str) -> str:
    advice = hub_advice(error, repo)
    return "" if advice is None else f": {advice}"


def _refusal(repo: str) -> Exception | None:
    """The error of the Hub for a data set that cannot be read, which `datasets` does not show, or None."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(repo, repo_type="dataset")
    except Exception as error:
        return error
    return None
