"""Interactions to the Hub: one Parquet file and a data-set card, in one commit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import polars as pl

from ..data import Interactions
from .card_text import CARD_FILE, PLACEHOLDER, sign, with_repository
from .repository import PushResult, SharedFile, commit_files

__all__ = ["push_interactions"]

TEMPLATE = Path(__file__).with_name("dataset_card_template.md")
DATA_FILE = "data/train-00000-of-00001.parquet"


def push_interactions(
    interactions: Interactions,
    repo_id: str,
    *,
    item_titles: Mapping[Any, str | None] | None = None,
    private: bool = True,
    token: str | None = None,
    overwrite_card: bool = False,
) -> PushResult:
    """Writes a data set that `--data owner/name` reads.

    Users are numbered in the order of their first rows: their ids do not leave, but who knows some interactions of a
    person may find the others, so the data set is private by default.

    Args:
        interactions: From `read_interactions` or `load_source`.
        repo_id: `owner/name`, made where it is missing.
        item_titles: Raw item id to title, for a column `title`.
        private: Whether a new repository is private.
        token: Instead of the client's own login.
        overwrite_card: Whether a card that was edited on the Hub is replaced too.

    Raises:
        HubError: The Hub cannot be reached, or says no.
    """
    users = interactions.frame["user_id"]
    first = users.unique(maintain_order=True)
    numbers = pl.DataFrame({"user_id": first, "number": pl.int_range(1, len(first) + 1, eager=True)})
    frame = interactions.frame.join(numbers, on="user_id", how="left", maintain_order="left")
    frame = frame.select(user_id="number", item_id="item_id", timestamp="timestamp")
    if interactions.has_dates:  # they stay dates, and time gaps seconds, for who reads them from the Hub
        frame = frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us")))
    if item_titles:
        titles = [item_titles.get(raw) for raw in frame["item_id"].to_list()]
        frame = frame.with_columns(title=pl.Series(titles, dtype=pl.String))
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    files = {DATA_FILE: buffer.getvalue(), CARD_FILE: _card(interactions, frame, repo_id).encode("utf-8")}
    return commit_files(
        [SharedFile(path, content, len(content)) for path, content in files.items()],
        repo_id,
        kind="dataset",
        private=private,
        message="Upload interactions with glintru prepare",
        token=token,
        ours=(DATA_FILE,),
        overwrite_card=overwrite_card,
    )


def _card(interactions: Interactions, frame: pl.DataFrame, repo_id: str) -> str:
    median = float(np.median(frame["user_id"].value_counts()["count"]))
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=repo_id.rpartition("/")[2],
        repo=PLACEHOLDER + "data",
        file=DATA_FILE,
        source=interactions.source,
        interactions=f"{frame.height:,}",
        users=f"{interactions.num_users:,}",
        items=f"{interactions.num_items:,}",
        median=f"{median:g}",
        titles="\n| `title` | the item's title, where known |" if "title" in frame.columns else "",
    )
    return sign(with_repository(text, repo_id))
