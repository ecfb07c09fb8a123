"""Conditions on rows, such as `event_type == 'purchase'`: parsed, checked, and never run as code."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ..errors import DataError, nearest_names
from .columns import base_name, name_in_condition
from .rows import MISSING_TEXT, Rows
from .times import ISO_TIME_TEXT, date_times, read_times

__all__ = ["Condition", "filter_rows", "parse_condition"]

LONGEST = 2000  # letters of a condition
LARGEST_FLOAT_INTEGER = 2**53
CONSTANTS = {"true": True, "false": False, "null": None, "NULL": None}
ALLOWED = (
    "a condition compares columns with values by ==, !=, <, <=, >, >=, in, not in, is null and is not null, and joins "
    "comparisons with and, or, not and parentheses"
)
OPERATORS: dict[type[ast.cmpop], Callable[[pl.Expr, Any], pl.Expr]] = {
    ast.Eq: lambda column, value: column == value,
    ast.NotEq: lambda column, value: column != value,
    ast.Lt: lambda column, value: column < value,
    ast.LtE: lambda column, value: column <= value,
    ast.Gt: lambda column, value: column > value,
    ast.GtE: lambda column, value: column >= value,
}
MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
SIGNS: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
# Quoted values stay as they are; names in backticks may hold any letter.
QUOTED_OR_BACKTICKED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`([^`]*)`")


@dataclass(frozen=True)
class Condition:
    """A condition whose form and columns are checked.

    Args:
        text: As it was given.
        tree: What it says.
        names: What stands in it as a name, to the column of the table.
    """

    text: str
    tree: ast.expr
    names: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return tuple(dict.fromkeys(self.names.values()))


def parse_condition(text: str, columns: Sequence[str], source: str) -> Condition:
    """Checks a condition without running it.

    Args:
        text: `rating >= 4`, `event_type == 'purchase' and price < 10`, `country in ('de', 'at')`, `title is not null`;
            a column whose name is no plain word stands in backticks.
        columns: Names of the table's columns.
        source: Short name of the table, for the errors.

    Raises:
        DataError: It is no such condition, or names a column that is not there.
    """
    if len(text) > LONGEST:
        raise DataError(f"--where takes at most {LONGEST:,} letters, but got {len(text):,}.")
    quoted: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name = f"column_in_backticks_{len(quoted)}"
        quoted[name] = match[1]
        return name

    source_text = QUOTED_OR_BACKTICKED.sub(placeholder, text).strip()
    try:
        tree = ast.parse(source_text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        equals = re.search(r"(?<![=!<>])=(?!=)", QUOTED_OR_BACKTICKED.sub("", text))
        hint = "write == to compare" if equals else f"{ALLOWED}; text stands in quotes"
        raise DataError(f"--where {text!r} is not understood: {hint}.") from error
    condition = Condition(text, tree)
    for name in _names(tree, text):
        written = quoted.get(name, name)
        found = next((column for column in columns if written in (column, base_name(column))), None)
        if found is None:
            raise DataError(
                f"--where {text!r} needs a column {written!r}, which {source} does not have; "
                f"{nearest_names(written, columns)}"
                + (" Text stands in quotes." if written not in quoted.values() else "")
            )
        condition.names[name] = found
    return condition


def filter_rows(
    rows: Rows, conditions: Sequence[Condition], time: str | None = None, time_format: str | None = None
) -> None:
    """Keeps the rows that meet all conditions.

    A row in which a compared cell is missing is left out, whatever the comparison. In text files a column that is
    compared with a number is read as numbers, and a column of text that is compared with a date is read as dates.

    Args:
        rows: The rows.
        conditions: The conditions.
        time: Name of the column of times, whose cells are read as `times.read_times` reads them.
        time_format: Of that column.

    Raises:
        DataError: A column and its value are of different kinds, or nothing is left.
    """
    for condition in conditions:
        before = len(rows)
        rows.strip([name for name in condition.columns if rows.table.is_text])
        translation = _Translation(rows, condition, time, time_format)
        try:
            expression = translation.of(condition.tree)
            kept = rows.frame.select(expression.alias("kept")).to_series()
        except (pl.exceptions.PolarsError, OverflowError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise DataError(f"--where {condition.text!r} does not fit {rows.table.source} ({reason}).") from error
        counts = translation.count_no_numbers()
        if not kept.any():
            raise DataError(
                f"No row of {rows.table.source} meets --where {condition.text!r}{_examples(rows, condition)}."
            )
        rows.keep(kept)
        rows.notes.append(f"--where {condition.text!r} keeps {len(rows):,} of {before:,} rows{counts}.")


def _names(node: ast.expr, text: str) -> list[str]:
    """The names of columns in a condition, which must have the right form."""
    if isinstance(node, ast.BoolOp):
        return [name for value in node.values for name in _names(value, text)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _names(node.operand, text)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        found = [name for side in sides for name in _names_of_side(side, text)]
        for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
            _check_comparison(left, operator, right, text)
        return found
    if isinstance(node, ast.Name) and node.id not in CONSTANTS:
        return [node.id]
    raise _not_allowed(node, text)


def _names_of_side(node: ast.expr, text: str) -> list[str]:
    if isinstance(node, ast.Name) and node.id not in CONSTANTS:
        return [node.id]
    _value(node, text)
    return []


def _check_comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr, text: str) -> None:
    left_is_column, right_is_column = (_is_column(side) for side in (left, right))
    if left_is_column == right_is_column:
        raise DataError(
            f"--where {text!r} compares {_written(left)} with {_written(right)}, but one side must be a column and the "
            "other a value (text in quotes)."
        )
    value = _value(right if left_is_column else left, text)
    if isinstance(operator, (ast.In, ast.NotIn)):
        fine = left_is_column and isinstance(value, list) and value and None not in value
        wanted = "a column on its left and a list of values on its right, such as country in ('de', 'at')"
    elif isinstance(operator, (ast.Is, ast.IsNot)):
        fine, wanted = left_is_column and value is None, "null on its right"
    else:
        fine = value is not None and not isinstance(value, list)
        wanted = "a single value; a missing one is found by is null"
    if not fine:
        written = _written(ast.Compare(left, [operator], [right]))
        raise DataError(f"--where {text!r}: {written} needs {wanted}.")


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id not in CONSTANTS


def _value(node: ast.expr, text: str) -> Any:
    """A constant of a condition: a number, a text, true, false, null, or a list of such."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return [_value(element, text) for element in node.elts]
    if isinstance(node, ast.Name) and node.id in CONSTANTS:
        return CONSTANTS[node.id]
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (bool, int, float, str))):
        if sign == 1:
            return node.value
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return -node.value
    raise _not_allowed(node, text)


def _not_allowed(node: ast.expr, text: str) -> DataError:
    return DataError(f"--where {text!r} holds {_written(node)}, but {ALLOWED}.")


def _written(node: ast.expr) -> str:
    written = ast.unparse(node)
    return written if len(written) <= 60 else written[:57] + "..."


class _Translation:
    """From the tree of a condition to an expression of polars, for the types that the columns have."""

    def __init__(self, rows: Rows, condition: Condition, time: str | None, time_format: str | None) -> None:
        self.rows, self.condition = rows, condition
        self.time, self.time_format = time, time_format
        self.as_numbers: dict[str, None] = {}  # columns of text that were compared with numbers

    def of(self, node: ast.expr) -> pl.Expr:
        if isinstance(node, ast.BoolOp):
            parts = [self.of(value) for value in node.values]
            join = pl.all_horizontal if isinstance(node.op, ast.And) else pl.any_horizontal
            return join(parts)
        if isinstance(node, ast.UnaryOp):
            return ~self.of(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return pl.all_horizontal([self.comparison(left, operator, right) for left, operator, right in pairs])
        assert isinstance(node, ast.Name)
        return self.column_for(node, [True])

    def comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> pl.Expr:
        kind = type(operator)
        if not _is_column(left):
            left, right, kind = right, left, MIRRORED[kind]
        value = _value(right, self.condition.text)
        if isinstance(operator, (ast.Is, ast.IsNot)):
            missing = self.missing(self.condition.names[left.id])  # type: ignore[attr-defined]
            return missing if isinstance(operator, ast.Is) else ~missing
        values = value if isinstance(value, list) else [value]
        ordered = not isinstance(operator, (ast.In, ast.NotIn, ast.Eq, ast.NotEq))
        if ordered:
            self.refuse_quoted_numbers(left, values, kind)
        moments = self.as_moments(left, values, ordered)
        if moments is None:
            column = self.column_for(left, values)
            values = self.values_for(left, values)
        else:
            column, values = moments
        if isinstance(operator, (ast.In, ast.NotIn)):
            # One by one, because `is_in` takes no integers for a column of floats.
            inside = pl.any_horizontal([column == pl.lit(value) for value in values])
            return inside if isinstance(operator, ast.In) else ~inside
        return OPERATORS[kind](column, pl.lit(values[0]))

    def missing(self, name: str) -> pl.Expr:
        column, kind = pl.col(name), self.rows.frame.schema[name]
        if kind == pl.String and self.rows.table.is_text:
            return column.is_null() | column.is_in(MISSING_TEXT)
        return column.is_null() | column.is_nan() if kind.is_float() else column.is_null()

    def as_moments(self, node: ast.expr, values: list[Any], ordered: bool) -> tuple[pl.Expr, list[Any]] | None:
        """A column without a type of dates, and the values, as moments; None where they are to be compared as they are.

        Moments are what the column of times is compared with, and what any column of text is compared with where the
        values are ISO dates. A column that is not all dates is still compared with a date by == and in, as text.
        """
        assert isinstance(node, ast.Name)
        name = self.condition.names[node.id]
        kind, is_time = self.rows.frame.schema[name], name == self.time
        if not all(isinstance(value, str) for value in values) or not (kind == pl.String or kind.is_numeric()):
            return None
        texts = pl.Series(values, dtype=pl.String)
        looks_like_dates = bool(texts.str.contains(ISO_TIME_TEXT).all())
        if not looks_like_dates and not (is_time and kind == pl.String):
            return None
        moments = self.read_values(texts, is_time)
        if moments.null_count():
            if not ordered:
                return None
            raise self.wants_dates(name)
        cells = self.rows.frame[name]
        if kind == pl.String:
            cells = self.rows.frame.select(
                pl.when(~self.missing(name) & (pl.col(name) != "")).then(pl.col(name))
            ).to_series()
        where = f"--where {self.condition.text!r}: column {name!r} of {self.rows.table.source}"
        try:
            times, has_dates = read_times(cells, where, self.rows.place, self.time_format if is_time else None)
        except DataError:
            if ordered or is_time:
                raise
            return None
        if not has_dates and cells.null_count() < len(cells):
            if not (ordered or is_time):
                return None
            raise DataError(
                f"{where} holds numbers, so it cannot be compared with the date {values[0]!r}: compare it with a "
                "number in the unit of the column, without quotes."
            )
        return pl.lit(times.cast(pl.Datetime("us"))), moments.to_list()

    def read_values(self, texts: pl.Series, is_time: bool) -> pl.Series:
        """Values as dates: ISO dates, or dates in the form of the column of times; null where one is none."""
        moments = date_times(texts)
        if not moments.null_count() or not is_time or self.time_format is None:
            return moments
        try:
            times, _ = read_times(texts, "--where", lambda row: f"value {row + 1}", self.time_format)
        except DataError:
            return moments
        return times.cast(pl.Datetime("us"))

    def refuse_quoted_numbers(self, node: ast.expr, values: list[Any], kind: type[ast.cmpop]) -> None:
        """Refuses to order numbers of a text file as text, by which '10' is less than '4'."""
        assert isinstance(node, ast.Name)
        name = self.condition.names[node.id]
        if self.rows.frame.schema[name] != pl.String or not self.rows.table.is_text or not isinstance(values[0], str):
            return
        if name == self.time and self.time_format is not None:  # such as 20240531
            return
        if pl.Series(values).cast(pl.Float64, strict=False).null_count():
            return
        known = self.rows.frame.filter(~self.missing(name))[name]
        if len(known) and not known.cast(pl.Float64, strict=False).null_count():
            raise DataError(
                f"--where {self.condition.text!r}: {name!r} holds numbers, but {values[0]!r} is text; "
                f"numbers stand without quotes: {name_in_condition(name)} {SIGNS[kind]} {values[0].strip()}."
            )

    def wants_dates(self, name: str) -> DataError:
        return DataError(
            f"--where {self.condition.text!r}: {name!r} holds dates; write them as '2024-05-31' or "
            "'2024-05-31T18:00:00'."
        )

    def column_for(self, node: ast.expr, values: list[Any]) -> pl.Expr:
        """The column in the type that these values have."""
        assert isinstance(node, ast.Name)
        name = self.condition.names[node.id]
        kind = self.rows.frame.schema[name]
        kinds = {
            "text" if isinstance(v, str) else "true or false" if isinstance(v, bool) else "numbers" for v in values
        }
        if len(kinds) > 1:
            raise DataError(f"--where {self.condition.text!r} mixes {' and '.join(sorted(kinds))} for {name!r}.")
        wanted = kinds.pop()
        column = pl.col(name)
        if kind == pl.String and wanted == "numbers":
            if any(isinstance(value, int) and abs(value) > LARGEST_FLOAT_INTEGER for value in values):
                raise DataError(
                    f"--where {self.condition.text!r}: integers of more than 53 bits are not exact as numbers; "
                    f"put the values of {name!r} in quotes."
                )
            self.as_numbers[name] = None
            return column.cast(pl.Float64, strict=False).fill_nan(None)
        if kind == pl.String and wanted == "true or false":
            return column.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
        if kind.is_temporal() and wanted == "text":
            return column.cast(pl.Datetime("us")) if kind == pl.Date else _moments(column, kind)
        has = "text" if kind == pl.String else "true or false" if kind == pl.Boolean else str(kind)
        if kind.is_numeric():
            has = "numbers"
            column = column.fill_nan(None) if kind.is_float() else column
        if has != wanted:
            quotes = " (numbers stand without quotes)" if has == "numbers" and wanted == "text" else ""
            raise DataError(f"--where {self.condition.text!r}: {name!r} holds {has}, not {wanted}{quotes}.")
        return column

    def values_for(self, node: ast.expr, values: list[Any]) -> list[Any]:
        """Dates where the column has dates."""
        assert isinstance(node, ast.Name)
        name = self.condition.names[node.id]
        if not self.rows.frame.schema[name].is_temporal():
            return values
        dates = date_times(pl.Series(values, dtype=pl.String))
        if dates.null_count():
            raise self.wants_dates(name)
        return dates.to_list()

    def count_no_numbers(self) -> str:
        """How many cells that were to be numbers are none, for people."""
        found = []
        for name in self.as_numbers:
            column = pl.col(name)
            wrong = column.cast(pl.Float64, strict=False).is_null() & ~self.missing(name)
            count = int(self.rows.frame.select(wrong.sum()).item())
            if count:
                found.append(f"; {count:,} cells of {name!r} are no numbers, and their rows are left out")
        return "".join(found)


def _moments(column: pl.Expr, kind: Any) -> pl.Expr:
    column = column.dt.cast_time_unit("us")
    return column if kind.time_zone is None else column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _examples(rows: Rows, condition: Condition) -> str:
    """What the columns of text in a condition hold."""
    shown = []
    for name in condition.columns:
        if rows.frame.schema[name] == pl.String:
            values = rows.frame[name].drop_nulls().unique(maintain_order=True).head(5).to_list()
            shown.append(f"{name!r} holds " + ", ".join(map(repr, values)))
    return "; " + "; ".join(shown) if shown else ""
