"""Conditions on rows, such as `event_type == 'purchase'`: parsed, checked, and never run as code."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ..errors import DataError, nearest_names
from .columns import base_name
from .rows import MISSING_TEXT, Rows
from .times import date_times

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


def filter_rows(rows: Rows, conditions: Sequence[Condition]) -> None:
    """Keeps the rows that meet all conditions.

    A row in which a compared cell is missing is left out, whatever the comparison. In text files a column that is
    compared with a number is read as numbers.

    Raises:
        DataError: A column and its value are of different kinds, or nothing is left.
    """
    for condition in conditions:
        before = len(rows)
        rows.strip([name for name in condition.columns if rows.table.is_text])
        translation = _Translation(rows, condition)
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

    def __init__(self, rows: Rows, condition: Condition) -> None:
        self.rows, self.condition = rows, condition
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
        column = self.column_for(left, values)
        values = self.values_for(left, values)
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
            raise DataError(
                f"--where {self.condition.text!r}: {name!r} holds dates; write them as '2024-05-31' or "
                "'2024-05-31T18:00:00'."
            )
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
