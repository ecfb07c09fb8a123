"""`--allowed FILE` and `--exclude FILE`: lists of items for filters; and item ids that are typed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from ..errors import DataError, GlintRUError
from ..machine import expanded
from ..terminal import print_lines


def read_filters(allowed: str | None, exclude: str | None, item_column: str | None, processor: Any) -> dict[str, Any]:
    """The options `allowed` and `exclude` of what recommends, each an `ItemSet` or None.

    Items that the model does not know are counted in a line on the error stream.

    Args:
        allowed, exclude: Files: `.txt` with one id a line, or a table with a column of items, as interactions have.
        item_column: Name of that column, where the table has one of this name.
        processor: The vocabulary.

    Raises:
        DataError: A file cannot be read, or the model knows no item of `allowed`.
    """
    options = (("--allowed", "allowed", allowed), ("--exclude", "exclude", exclude))
    return {
        key: None if file is None else _item_set(option, file, item_column, processor) for option, key, file in options
    }


def _item_set(option: str, file: str, item_column: str | None, processor: Any) -> Any:
    import numpy as np

    from ..serving import ItemSet
    from ..serving.offline import indices_of

    ids = _read_ids(option, file, item_column).unique(maintain_order=True)
    indices = indices_of(ids, processor, "drop").to_numpy()
    mask = np.zeros(processor.vocab_size, bool)
    mask[indices] = True
    unknown, name = int((indices == 0).sum()), Path(file).name
    if option == "--allowed" and unknown == len(indices):
        raise DataError(
            f"{option} {name} has no item that the model knows among its {unknown:,} items, so there is nothing to "
            "recommend"
        )
    if unknown:
        print_lines(f"{option} {name}: {unknown:,} of {len(indices):,} items are unknown to the model", sys.stderr)
    return ItemSet(processor, mask[1:])


def _read_ids(option: str, file: str, item_column: str | None) -> Any:
    """A polars column of raw ids."""
    import polars as pl

    from ..data.columns import base_name, recognise_column
    from ..data.interactions import read_ids
    from ..data.readers import open_table

    path = expanded(file)
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{option} {file} cannot be read as a text with one id a line: {error}") from error
        return pl.Series("item_id", [line.strip() for line in lines if line.strip()], dtype=pl.String)
    table = open_table(file)
    given = item_column if item_column in [base_name(name) for name in table.names] else None
    column = recognise_column(table.names, "item", table.source, given)
    return read_ids(table.load([column])[column].drop_nulls(), table)


def parse_item_id(processor: Any, text: str) -> Any:
    """A raw id that was typed as text, in the type of the vocabulary's ids; the item need not be known.

    Raises:
        GlintRUError: The ids are integers and the text is none.
    """
    if processor.id_type == "string":
        return text
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", text):
        raise GlintRUError(f"The item ids of this model are integers, but got {text!r}.")
    return int(text)
