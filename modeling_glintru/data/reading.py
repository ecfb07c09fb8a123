"""The options of reading a table, which recipes, the command line and the Python functions share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from .columns import base_name

__all__ = ["COLUMNS", "FILE_FORM", "ReadingOptions"]

COLUMNS = ("user_column", "item_column", "time_column", "order_column", "session_column")
FILE_FORM = ("encoding", "separator", "columns", "quote")  # how a file of text is written


def _option(default: Any, help: str, metavar: str | None = None) -> Any:
    """A field with its text in `--help` and the word that stands for its value there (`metavar`)."""
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class ReadingOptions:
    """The options of `read_interactions`; each field is described by its `help`."""

    user_column: str | None = _option(None, "Column of user ids.")
    item_column: str | None = _option(None, "Column of item ids.")
    time_column: str | None = _option(None, "Column of times.")
    order_column: str | None = _option(None, "Column that sorts a user's rows of one time.")
    session_column: str | None = _option(None, "Column of sessions: each session of a user is a history.")
    session_gap: str | None = _option(None, "A pause this long begins a new history, such as 30m.", "TIME")
    time_format: str | None = _option(
        None, "How times are written: day_first, month_first, or such as %d.%m.%Y.", "FORMAT"
    )
    in_file_order: bool = _option(False, "There is no time: the rows are in order.")
    where: tuple[str, ...] = _option((), "Only rows such as \"event == 'buy'\"; may be repeated.", "CONDITION")
    drop_missing: bool = _option(False, "Leave out rows without user, item or time.")
    encoding: str | None = _option(None, "Encoding of a file of text, such as latin-1.")
    separator: str | None = _option(None, "What separates the fields of a file of text.")
    columns: tuple[str, ...] = _option((), "Column names of a file without header, separated by commas.", "NAMES")
    quote: str | None = _option(None, "Character around fields; none where quotes mean nothing.", "CHARACTER")

    def given(self) -> dict[str, Any]:
        """The options that are not at their defaults, by name."""
        values = ((item, getattr(self, item.name)) for item in fields(ReadingOptions))
        return {item.name: value for item, value in values if value != item.default}

    def fitting(self, names: Collection[str], same_form: bool) -> dict[str, Any]:
        """Those of the given options that can be used for another table too.

        Args:
            names: The columns of that table; options that name another column are left out.
            same_form: Whether it is a file of the same kind, so that it is written in the same way.
        """
        # A name such as events.aid means the field aid in the column events.
        there = {*names, *map(base_name, names)}
        return {
            name: value
            for name, value in self.given().items()
            if (name not in COLUMNS or value in there or value.partition(".")[0] in there)
            and (name not in FILE_FORM or same_form)
        }
