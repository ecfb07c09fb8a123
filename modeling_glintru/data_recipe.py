"""The section of a recipe that says where the interactions come from, and how they are read, filtered and split."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field, fields
from typing import Any

from .data.filtering import DUPLICATE_POLICIES
from .data.reading import ReadingOptions
from .data.splits import HOLD_OUT, SPLITS
from .errors import RecipeError
from .recipe_checks import at_least, one_of

__all__ = ["DataRecipe", "GivenSplit"]


@dataclass(frozen=True)
class _Source:
    source: str | None = None


def _file(help: str) -> Any:
    return field(default=None, metadata={"help": help, "metavar": "FILE"})


@dataclass(frozen=True)
class GivenSplit:
    """The files of a split that somebody else made; `train_data` takes the place of the source."""

    train_data: str | None = _file("Instead of --data: the training part of a split that is given.")
    validation_data: str | None = _file("With --train_data: what is validated on.")
    test_data: str | None = _file("With --train_data: what is tested on.")


@dataclass(frozen=True)
class DataRecipe(ReadingOptions, GivenSplit, _Source):
    """Where the interactions come from, and how they are read, filtered and split.

    Args:
        source: A file, a Hub data set name, `"ml-100k"` or `"demo"`; None when it is given on the command line.
        train_data, validation_data, test_data: Instead of `source`, the files of a split that is given.
        item_titles: A file with titles of items, or None.
        title_column: Name of its column of titles; None recognises the usual names.
        duplicates: Repeated rows: `"exact"` leaves out copies, see `filter_interactions` for the others.
        min_user_interactions: Users with fewer interactions are left out (0: none).
        min_item_interactions: Items with fewer interactions are left out (0: none).
        split: `"leave_one_out"`, `"temporal"`, `"user"` or `"given"`.
        hold_out: What leave_one_out holds out: the last `"item"` of a user, or the last `"basket"`, all of its items.
        validation_fraction: Share of the validation part in the temporal and the user split.
        test_fraction: Share of the test part in the temporal and the user split.
        split_seed: Which users the user split holds out; apart from `seed`, so that runs share their test users.

    All options of `ReadingOptions` stand in between: `user_column`, `where`, `encoding` and the others.

    Raises:
        RecipeError: A value that is not allowed.
    """

    item_titles: str | None = None
    title_column: str | None = None
    duplicates: str = "exact"
    min_user_interactions: int = 0
    min_item_interactions: int = 0
    split: str = "leave_one_out"
    hold_out: str = "item"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 42

    def __post_init__(self) -> None:
        one_of("data.duplicates", self.duplicates, DUPLICATE_POLICIES)
        one_of("data.split", self.split, SPLITS)
        one_of("data.hold_out", self.hold_out, HOLD_OUT)
        for name in ("split_seed", "min_user_interactions", "min_item_interactions"):
            at_least(f"data.{name}", getattr(self, name), 0)
        if not (self.validation_fraction > 0 and self.test_fraction > 0):
            raise RecipeError("data.validation_fraction and data.test_fraction must be above 0.")
        if not self.validation_fraction + self.test_fraction < 1:
            raise RecipeError("data.validation_fraction and data.test_fraction must leave something to train on.")
        if self.hold_out != "item" and self.split != "leave_one_out":
            raise RecipeError(f"data.hold_out {self.hold_out} is for split leave_one_out, not for {self.split}.")
        self._check_reading()

    def _check_reading(self) -> None:
        for name, value in self.reading.items():
            if "" in (value if isinstance(value, tuple) else (value,)):
                raise RecipeError(f"data.{name} must not be empty.")
        if len(set(self.columns)) < len(self.columns):
            raise RecipeError(f"data.columns names a column twice: {', '.join(self.columns)}.")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise RecipeError(
                    f"data.encoding must be an encoding such as utf-8, latin-1 or utf-16, but got {self.encoding!r}."
                ) from None

    @property
    def reading(self) -> dict[str, Any]:
        """The reading options that are not at their defaults, as `load_source` takes them."""
        return self.given()

    @property
    def split_files(self) -> dict[str, str]:
        """The files of a given split, by the names of the fields; empty where there is none."""
        return {item.name: file for item in fields(GivenSplit) if (file := getattr(self, item.name)) is not None}
