"""Recommendations of many users as rows of a frame, or in one file: a row an item, in jsonl a line a user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..models.processing_glintru import GlintRUProcessor
from ..whole_files import whole_file

__all__ = ["RecommendationRows", "check_output", "open_output"]


def check_output(path: Path, overwrite: bool) -> None:
    """Finds out before a long computation whether its result may be written.

    Raises:
        DataError: Another suffix, a folder, no such folder, or a file that may not be replaced.
    """
    if path.suffix.lower() not in WRITERS:
        raise DataError(f"--output must end in {', '.join(WRITERS)}, but got {path}")
    if path.is_dir():
        raise DataError(f"--output must be a file, but {path} is a folder")
    if path.exists() and not path.is_file():
        raise DataError(f"--output must be a regular file, which {path} is not")
    if not path.absolute().parent.is_dir():
        raise DataError(f"there is no folder {path.parent} for --output {path}")
    if path.exists() and not overwrite:
        raise DataError(f"{path} is there already; choose another --output or add --overwrite")


@contextmanager
def open_output(path: Path, processor: GlintRUProcessor, user_ids: pl.Series) -> Iterator[Any]:
    """A writer, `writer.add(user_ids, items, scores, cold)`; the file appears at the end, whole, or not at all.

    Args:
        path: Ends in `.parquet`, `.csv` or `.jsonl`; replaced if it exists.
        processor: Gives raw ids and titles.
        user_ids: Any user ids, for their type.
    """
    writer_of_kind = WRITERS[path.suffix.lower()]
    with whole_file(path) as unfinished, writer_of_kind(unfinished, processor, user_ids.dtype) as writer:
        yield writer


class RecommendationRows:
    """Makes a row of each recommendation, with raw ids and titles.

    Args:
        processor: Gives raw ids and titles.
    """

    def __init__(self, processor: GlintRUProcessor) -> None:
        self.item_ids = pl.Series("item_id", processor.item_ids)
        titles = processor.item_titles
        self.titles = None if titles is None else pl.Series("title", titles, dtype=pl.String)

    def rows(self, user_ids: pl.Series, items: np.ndarray, scores: np.ndarray, cold: np.ndarray) -> pl.DataFrame:
        """`user_id`, `rank` (1 is the best), `item_id`, `title` where there are titles, `score`, `cold_start`.

        Args:
            user_ids: Raw ids, n.
            items: (n, k) indices of items, best first, 0 where there is none.
            scores: (n, k) float32.
            cold: (n,) bool, the users of whom the model knows no item.
        """
        there = items.ravel() > 0
        users = np.repeat(np.arange(len(items)), items.shape[1])[there]
        places = pl.Series(items.ravel()[there] - 1)
        frame = pl.DataFrame(
            {
                "user_id": user_ids.gather(users),
                "rank": np.tile(np.arange(1, items.shape[1] + 1, dtype=np.int32), len(items))[there],
                "item_id": self.item_ids.gather(places),
            }
        )
        if self.titles is not None:
            frame = frame.with_columns(self.titles.gather(places))
        return frame.with_columns(
            pl.Series("score", scores.ravel()[there], dtype=pl.Float32), pl.Series("cold_start", cold[users])
        )


class _Writer(RecommendationRows):
    """Writes rows to a file; `begin` and `end` write what stands around them."""

    def __init__(self, path: Path, processor: GlintRUProcessor, user_type: Any) -> None:
        super().__init__(processor)
        self.file = open(path, "wb")  # noqa: SIM115 (closed in __exit__)
        self.begin(pl.DataFrame(schema={"user_id": user_type}))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *failure: object) -> None:
        self.end()
        self.file.close()

    def no_rows(self, users: pl.DataFrame) -> pl.DataFrame:
        """The columns alone."""
        nobody = np.zeros((0, 1), np.int64)
        return self.rows(users["user_id"], nobody, nobody.astype(np.float32), np.zeros(0, bool))

    def begin(self, users: pl.DataFrame) -> None:
        """What stands at the head of the file; `users` is an empty frame with their column."""

    def add(self, user_ids: pl.Series, items: np.ndarray, scores: np.ndarray, cold: np.ndarray) -> None:
        """Users, their items (n, k) as indices, 0 where there is none, the scores (n, k), and cold starts (n,) bool."""
        raise NotImplementedError

    def end(self) -> None:
        """What stands at the end of the file."""


class _Parquet(_Writer):
    def begin(self, users: pl.DataFrame) -> None:
        schema = self.no_rows(users).to_arrow().schema
        self.writer = pq.ParquetWriter(self.file, schema, compression="zstd")

    def add(self, user_ids: pl.Series, items: np.ndarray, scores: np.ndarray, cold: np.ndarray) -> None:
        table: pa.Table = self.rows(user_ids, items, scores, cold).to_arrow()
        self.writer.write_table(table.cast(self.writer.schema))

    def end(self) -> None:
        self.writer.close()


class _Csv(_Writer):
    def begin(self, users: pl.DataFrame) -> None:
        self.file.write(self.no_rows(users).write_csv().encode())

    def add(self, user_ids: pl.Series, items: np.ndarray, scores: np.ndarray, cold: np.ndarray) -> None:
        self.file.write(self.rows(user_ids, items, scores, cold).write_csv(include_header=False).encode())


class _JsonLines(_Writer):
    """The lines of `glintru recommend --users FILE --json`."""

    def add(self, user_ids: pl.Series, items: np.ndarray, scores: np.ndarray, cold: np.ndarray) -> None:
        found = self.rows(user_ids, items, scores, cold).drop("user_id", "rank", "cold_start").to_dicts()
        start = 0
        for user, count, is_cold in zip(user_ids.to_list(), (items > 0).sum(1).tolist(), cold.tolist(), strict=True):
            row = {"user_id": user, "recommendations": found[start : start + count], "cold_start": is_cold}
            self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            start += count


WRITERS: dict[str, type[_Writer]] = {".parquet": _Parquet, ".csv": _Csv, ".jsonl": _JsonLines}
