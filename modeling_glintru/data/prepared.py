"""Prepared data: the histories for training and evaluation and their item vocabulary, in memory or as a folder."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, GlintRUError
from ..models.configuration_glintru import UNKNOWN_GAP
from ..models.untrusted_text import parse_json
from ..whole_files import checksum, exchange, unfinished_folder
from .files import SUMMARY_FILE
from .histories import iterate_flat_histories
from .item_features import ItemFeatures
from .splits import PARTS
from .summary import ITEMS, describe, recurring_training_targets

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from ..models.processing_glintru import GlintRUProcessor

__all__ = [
    "PreparedData",
    "check_output_folder",
    "load_prepared",
    "read_summary",
    "whole_folder",
    "with_everything",
    "write_summary",
]

FORMAT = "glintru-prepared"
FORMAT_VERSION = 1
OWN_CHECKSUM = "summary_checksum"  # the entry of `summary.json` for itself
LARGE = 2 << 30  # bytes of a prepared folder above which its checksums are compared beside the work
ROWS_PER_CHUNK = 65_536  # so few that the 32-bit offsets of a list column do not overflow
GAPS = "time_gaps"  # the optional column
LISTS = {"item_ids": pa.list_(pa.int32()), GAPS: pa.list_(pa.float32())}


@dataclass(frozen=True)
class PreparedData:
    """Histories for training and evaluation.

    Args:
        dataset: `train` has rows of `user_id` (raw) and `item_ids` (int32 indices, oldest first). `validation` and
            `test` have rows of `user_id`, `item_ids` (the whole history) and `target` (int32). Optionally there is
            `time_gaps`: float32, for each item the time to the next one or to the target, in seconds for dates and
            otherwise in the table's unit, and -1 after the last item of a training history. Where the split leaves out
            what follows a test target (`temporal`), `whole` has the complete histories of those users, for a last
            training on everything.
        processor: The processor with the item vocabulary: all items of the (filtered) table; index 0 is padding.
        summary: Counts, options and notes, which JSON can hold.
        item_features: What is known of the items, where a table of items was given.
        checking: The comparison of a large folder's files with their checksums, which goes on in a thread.
    """

    dataset: DatasetDict
    processor: GlintRUProcessor
    summary: dict[str, Any]
    item_features: ItemFeatures | None = field(default=None, repr=False, compare=False)
    checking: Future[None] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """int64 (vocab_size,): how often each item occurs in the training histories; 0 for the padding at index 0."""
        return item_counts(self.dataset["train"], self.processor.vocab_size)

    @cached_property
    def recurring(self) -> float:
        """Share of the training targets that stood in the history before, 0 to 1."""
        known = self.summary.get("recurring_targets")  # Prepared folders of earlier versions do not have it.
        return recurring_training_targets(self.dataset["train"]) if known is None else known["train"]

    def wait_until_checked(self) -> None:
        """Returns when the files of a large prepared folder were compared with their checksums; at once for others.

        Raises:
            DataError: A file is damaged.
        """
        if self.checking is not None:
            self.checking.result()

    def describe(self) -> str:
        """The summary in a few lines of text."""
        return describe(self.summary, self.processor.recommend_seen)


def item_counts(split: Dataset, vocab_size: int) -> np.ndarray:
    """int64 (vocab_size,): how often each item occurs in the histories of a split."""
    counts = np.zeros(vocab_size, np.int64)
    for items, _ in iterate_flat_histories(split, ROWS_PER_CHUNK):
        counts += np.bincount(items, minlength=vocab_size)
    return counts


def load_prepared(folder: str | Path) -> PreparedData:
    """Opens a folder that `prepare` wrote; the histories are memory-mapped.

    Raises:
        DataError: The folder is missing, not prepared data, incomplete or damaged.
    """
    from datasets import DatasetDict, load_from_disk

    from ..models.processing_glintru import GlintRUProcessor

    folder = Path(folder)
    summary = read_summary(folder)
    checking = _check_files(folder, summary.get("checksums", {}))  # folders of earlier versions have none
    try:
        dataset = load_from_disk(str(folder / "dataset"))
        assert isinstance(dataset, DatasetDict)
        rows = [dataset[part].num_rows for part in PARTS]
        columns = [dataset[part].column_names for part in PARTS]
    # Arrow, the file system and `datasets` have errors of their own, which mean the same here.
    except Exception as error:
        raise DataError(f"The data sets of {folder} are missing or damaged; run glintru prepare again.") from error
    try:
        processor = GlintRUProcessor.from_pretrained(str(folder))
    except GlintRUError as error:
        raise DataError(f"The item vocabulary of {folder} is missing or damaged; run glintru prepare again.") from error
    expected = [summary.get("train_histories")]
    expected += [summary.get(f"{part}_targets", summary.get(f"{part}_users")) for part in ("validation", "test")]
    gaps = [GAPS] if summary.get("options", {}).get(GAPS) else []
    evaluated = ["user_id", "item_ids", "target", *gaps]
    expected_columns = [["user_id", "item_ids", *gaps], evaluated, evaluated]
    if rows != expected or columns != expected_columns or len(processor) != summary.get("items"):
        raise DataError(f"The files of {folder} do not belong together; run glintru prepare again.")
    for part in dataset.values():
        _check_rows(part, processor.vocab_size, folder)
    features = ItemFeatures.load(folder, len(processor)) if ITEMS in summary else None
    return PreparedData(dataset, processor, summary, features, checking)


def _check_files(folder: Path, checksums: dict[str, list[int]]) -> Future[None] | None:
    """Compares all files with what was written, a gigabyte in about a third of a second where it need not be read.

    More than `LARGE` bytes are compared in a thread, whose end `PreparedData.wait_until_checked` waits for.

    Raises:
        DataError: A file is damaged or missing.
    """

    def check() -> None:
        for name, expected in checksums.items():
            try:
                same = checksum(folder / name) == expected
            except OSError:
                same = False
            if not same:
                raise DataError(f"{folder / name} is not what was written; run glintru prepare again.")

    if sum(size for size, _ in checksums.values()) <= LARGE:
        check()
        return None
    with_one_thread = ThreadPoolExecutor(1, "glintru-checksums")
    checking = with_one_thread.submit(check)
    with_one_thread.shutdown(wait=False)
    return checking


def _check_rows(part: Dataset, vocab_size: int, folder: Path) -> None:
    """Makes sure that every list and text is whole, and every item one of the vocabulary, whoever wrote the file.

    Raises:
        DataError: They are not.
    """
    table = part.data.table
    try:
        table.validate(full=True)
        for name in ("item_ids", "target"):
            chunks = table.column(name).chunks if name in table.column_names else ()
            for chunk in chunks:
                bounds = pc.min_max(chunk.flatten() if name == "item_ids" else chunk).as_py()
                if bounds["min"] is not None and not 0 < bounds["min"] <= bounds["max"] < vocab_size:
                    raise DataError(
                        f"The data sets of {folder} hold an item with the index "
                        f"{bounds['min'] if bounds['min'] < 1 else bounds['max']}, but the indices of its vocabulary "
                        f"are 1 to {vocab_size - 1}; run glintru prepare again."
                    )
    except pa.ArrowException as error:
        raise DataError(f"The data sets of {folder} are damaged ({error}); run glintru prepare again.") from error


def with_everything(data: PreparedData) -> PreparedData:
    """The same data with the complete history of every user for training, one row for each, in the order of the users.

    The other parts stay as they are, but figures on them mean nothing, because nothing is held out any more.

    Raises:
        DataError: The parts do not hold all interactions, as in a folder that an older version split by time.
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
    """The rows of a part as a polars frame."""
    columns = {}
    for name in part.column_names:
        column = part.data.column(name)
        columns[name] = pl.Series(name, column.cast(pa.large_list(column.type.value_type)) if name in LISTS else column)
    return pl.DataFrame(columns)


def _length(part: pl.DataFrame) -> pl.Expr:
    return pl.col("item_ids").list.len() + ("target" in part.columns)


def _with_target(part: pl.DataFrame) -> pl.DataFrame:
    """Histories with their targets at the end; the time after a target is unknown."""
    if "target" not in part.columns:
        return part
    ends = {"item_ids": pl.col("target"), "time_gaps": pl.lit(UNKNOWN_GAP, pl.Float32)}
    return part.select("user_id", *(pl.concat_list(name, ends[name]) for name in part.columns if name in ends))


def _dataset(table: pl.DataFrame, schema: pa.Schema) -> Dataset:
    from datasets import Dataset

    schema = pa.schema([(name, LISTS.get(name, schema.field(name).type)) for name in table.columns])
    pieces = [piece.to_arrow().cast(schema) for piece in table.iter_slices(ROWS_PER_CHUNK)]
    return Dataset(pa.concat_tables(pieces))


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that cannot be written: with other files in any case, with prepared data unless `overwrite`.

    Raises:
        DataError: The folder is not empty, or is a file or a broken link.
    """
    if not folder.exists():
        if folder.is_symlink():
            raise DataError(f"{folder} is a link to nowhere; choose another output folder.")
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, but prepared data is a folder; choose another output folder.")
    entries = {entry.name for entry in folder.iterdir()}
    if not entries:
        return
    try:
        own = {SUMMARY_FILE, *read_summary(folder)["files"]}
    except DataError:
        own = set()
    foreign = sorted(entries - own)
    if foreign:
        raise DataError(
            f"{folder} holds something else ({foreign[0]!r}), which is never overwritten; choose another output folder."
        )
    if not overwrite:
        raise DataError(f"{folder} already holds prepared data; choose another output folder or allow --overwrite.")


@contextmanager
def whole_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary folder to write into, which takes the place of `folder` when everything is written."""
    try:
        with unfinished_folder(folder) as unfinished:
            yield unfinished
            check_output_folder(folder, overwrite)
            if folder.exists():
                exchange(folder.resolve(), unfinished)
            else:
                unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}).") from error


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json`, with the names of all files beside it."""
    files = sorted(os.listdir(folder))
    inside = sorted(file for file in folder.rglob("*") if file.is_file())
    checksums = {file.relative_to(folder).as_posix(): checksum(file) for file in inside}
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files, "checksums": checksums, **summary}
    content[OWN_CHECKSUM] = _checksum_of(content)
    (folder / SUMMARY_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> dict[str, Any]:
    """Reads `summary.json` and checks that this package wrote it.

    Raises:
        DataError: The folder is missing, not prepared data, or of a newer version.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; make it with glintru prepare.")
    try:
        summary = parse_json((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not prepared data: it has no {SUMMARY_FILE}; make it with glintru prepare."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SUMMARY_FILE} is damaged; run glintru prepare again.") from error
    if not isinstance(summary, dict) or summary.get("format") != FORMAT or not isinstance(summary.get("files"), list):
        raise DataError(f"{folder} is not prepared data: its {SUMMARY_FILE} is of another kind.")
    if summary.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder} was prepared in format {summary.get('format_version')}, but this version reads "
            f"{FORMAT_VERSION}; run glintru prepare again."
        )
    if "checksums" in summary and summary.pop(OWN_CHECKSUM, None) != _checksum_of(summary):
        raise DataError(f"{folder / SUMMARY_FILE} is not what was written; run glintru prepare again.")
    return summary


def _checksum_of(summary: dict[str, Any]) -> int:
    """CRC-32 of a summary without its own checksum, as JSON gives it back."""
    return zlib.crc32(json.dumps(summary, sort_keys=True).encode())
