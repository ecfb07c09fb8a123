"""Data sets of the `datasets` library and of the Hub as tables."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import DataError
from ..models.loading import hub_advice
from .frames import from_arrow
from .table import Table, first_line

__all__ = ["hub_file", "open_dataset", "open_hub_dataset"]

STREAMED_BYTES = 2**30  # a Hub data set above this size is streamed
STREAMED_ROWS = 100_000  # at a time


def open_dataset(source: Any, split: str, display: str) -> Table:
    """A data set, or the named split of several.

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
        lambda names: from_arrow(source.select_columns(list(names)).with_format("arrow")[:]),
        display,
    )


def _streamed(source: Any, names: Sequence[str]) -> pl.DataFrame:
    """The columns of a streamed data set, a batch of rows at a time: what is not asked for is never kept."""
    rows = source.select_columns(list(names)).with_format("arrow")
    parts = [from_arrow(part) for part in rows.iter(batch_size=STREAMED_ROWS)]
    return pl.concat(parts) if parts else pl.DataFrame({name: [] for name in names})


def _is_large(repo: str) -> bool:
    """Whether a data set is streamed instead of copied to this machine; not where the Hub does not tell its size."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().dataset_info(repo, files_metadata=True).siblings or []
    except Exception:  # offline, or no such repository: loading says what is wrong
        return False
    return sum(file.size or 0 for file in files) > STREAMED_BYTES


def open_hub_dataset(name: str, split: str) -> Table:
    """A data set of the Hub, `owner/name` or `owner/name:config`.

    Raises:
        DataError: It cannot be loaded.
    """
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


def hub_file(url: str) -> Path:
    """The local copy of `hf://datasets/owner/name/file`.

    Raises:
        DataError: The address is not understood, or the file cannot be had.
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
    """What the Hub says when it is asked for a data set, which `datasets` keeps to itself; None where all is well."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(repo, repo_type="dataset")
    except Exception as error:
        return error
    return None
