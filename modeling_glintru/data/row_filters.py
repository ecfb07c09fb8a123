"""Conditions on rows, such as `event_type == 'purchase'`, which are parsed and checked but never run as code."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..errors import DataError, nearest_names
from .columns import base_name, name_in_condition
from .rows import MISSING_TEXT, Rows
from .table import first_line
from .times import ISO_TIME_TEXT, date_times, read_times

__all__ = ["Condition", "filter_rows", "parse_condition"]

LONGEST, DEEPEST = 2000, 100  # the most letters of a condition, and the most levels of its syntax tree
LARGEST_FLOAT_INTEGER = 2**53
CONSTANTS = {"true": True, "false": False, "null": None, "NULL": None}
ALLOWED = (
    "a condition compares columns with values by ==, !=, <, <=, >, >=, in, not in, is null and is not null, and joins "
    "comparisons with and, or, not and parentheses"
)
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
# Values in quotes stay as they are, and names in backticks may hold any letter.
QUOTED_OR_BACKTICKED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`([^`]*)`")


@dataclass(frozen=True)
class Comparison:
    """A column, one of the `OPERATORS` (or `"is true"`), and the values that it is compared with."""

    column: str
    operator: str
    values: list[Any]


@dataclass(frozen=True)
class Group:
    """Parts of a condition that are joined by `"and"` or `"or"`, or one part that is negated by `"not"`."""

    word: str
    parts: list[Comparison | Group]


@dataclass(frozen=True)
class Condition:
    """A condition whose form and columns are checked: its text, its tree, and the columns that it needs."""

    text: str
    tree: Comparison | Group
    columns: tuple[str, ...]


def parse_condition(text: str, columns: Sequence[str], source: str) -> Condition:
    """Parses a condition without running it.

    Args:
        text: `rating >= 4`, `event_type == 'purchase' and price < 10`, `country in ('de', 'at')`, `title is not null`;
            a column whose name is no plain word stands in backticks.
        columns: Names of the table's columns.
        source: Short name of the table, for the errors.

    Raises:
        DataError: The text is no such condition, or names a column that the table does not have.
    """
    if len(text) > LONGEST:
        raise DataError(f"--where takes at most {LONGEST:,} letters, but got {len(text):,}.")
    parser = _Parser(text, columns, source)
    return Condition(text, parser.condition(), tuple(parser.found))


class _Parser:
    """Makes comparisons of Python's syntax tree of a condition, and refuses everything else in it."""

    def __init__(self, text: str, columns: Sequence[str], source: str) -> None:
        self.text, self.columns, self.source = text, columns, source
        self.quoted: dict[str, str] = {}  # by a plain name that Python can parse, the name in backticks
        self.found: dict[str, None] = {}

    def condition(self) -> Comparison | Group:
        def with_plain_name(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0]
            name = f"column_in_backticks_{len(self.quoted)}"
            self.quoted[name] = match[1]
            return name

        try:
            tree = ast.parse(QUOTED_OR_BACKTICKED.sub(with_plain_name, self.text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            equals = re.search(r"(?<![=!<>])=(?!=)", QUOTED_OR_BACKTICKED.sub("", self.text))
            hint = "write == to compare" if equals else f"{ALLOWED}; text stands in quotes"
            raise DataError(f"--where {self.text!r} is not understood: {hint}.") from error
        level: list[ast.AST] = [tree]
        for _ in range(DEEPEST):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
        if level:  # Python could not follow it to its end.
            raise DataError(f"--where nests more than {DEEPEST} levels of signs and words such as not; {ALLOWED}.")
        return self.node(tree)

    def node(self, node: ast.expr) -> Comparison | Group:
        if isinstance(node, ast.BoolOp):
            return Group("and" if isinstance(node.op, ast.And) else "or", [self.node(part) for part in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Group("not", [self.node(node.operand)])
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            return Group("and", list(map(self.comparison, sides, node.ops, sides[1:])))
        if _is_column(node):
            return Comparison(self.column(node), "is true", [True])
        raise self.not_allowed(node)

    def comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Comparison:
        word = OPERATORS[type(sign)]
        values = [self.value(side) for side in (left, right) if not _is_column(side)]
        if len(values) != 1:
            raise DataError(
                f"--where {self.text!r} compares {_written(left)} with {_written(right)}, but one side must be a "
                "column and the other a value (text in quotes)."
            )
        value, is_mirrored = values[0], not _is_column(left)
        if word in ("in", "not in"):
            fine = not is_mirrored and isinstance(value, list) and value and None not in value
            wanted = "a column on its left and a list of values on its right, such as country in ('de', 'at')"
        elif word in ("is", "is not"):
            fine, wanted = not is_mirrored and value is None, "null on its right"
        else:
            fine = value is not None and not isinstance(value, list)
            wanted = "a single value; a missing one is found by is null"
        if not fine:
            written = _written(ast.Compare(left, [sign], [right]))
            raise DataError(f"--where {self.text!r}: {written} needs {wanted}.")
        column = self.column(right if is_mirrored else left)
        return Comparison(
            column, MIRRORED.get(word, word) if is_mirrored else word, value if isinstance(value, list) else [value]
        )

    def value(self, node: ast.expr) -> Any:
        """A constant: a number, a text, true, false, null, or a list of constants."""
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return [self.value(element) for element in node.elts]
        if isinstance(node, ast.Name) and node.id in CONSTANTS:
            return CONSTANTS[node.id]
        is_negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        constant = node.operand if is_negative else node  # type: ignore[attr-defined]
        if isinstance(constant, ast.Constant):
            value = constant.value
            if is_negative and isinstance(value, (int, float)) and not isinstance(value, bool):
                return -value
            if not is_negative and (value is None or isinstance(value, (bool, int, float, str))):
                return value
        raise self.not_allowed(node)

    def column(self, node: ast.expr) -> str:
        assert isinstance(node, ast.Name)
        written = self.quoted.get(node.id, node.id)
        found = next((column for column in self.columns if written in (column, base_name(column))), None)
        if found is None:
            raise DataError(
                f"--where {self.text!r} needs a column {written!r}, which {self.source} does not have; "
                f"{nearest_names(written, self.columns)}"
                + ("" if node.id in self.quoted else " Text stands in quotes.")
            )
        self.found[found] = None
        return found

    def not_allowed(self, node: ast.expr) -> DataError:
        return DataError(f"--where {self.text!r} holds {_written(node)}, but {ALLOWED}.")


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id not in CONSTANTS


def _written(node: ast.expr) -> str:
    written = ast.unparse(node)
    return written if len(written) <= 60 else written[:57] + "..."


def filter_rows(
    rows: Rows, conditions: Sequence[Condition], time: str | None = None, time_format: str | None = None
) -> None:
    """Leaves out the rows that do not meet all conditions.

    A row in which a compared cell is missing does not meet a condition. In text files a column that is compared with a
    number is read as numbers, and a column of text that is compared with a date is read as dates; the column `time` is
    read as in `times.read_times`.

    Raises:
        DataError: A column and its value are of different kinds, or no row remains.
    """
    for condition in conditions:
        before = len(rows)
        rows.strip([name for name in condition.columns if rows.table.is_text])
        translation = _Translation(rows, condition, time, time_format)
        try:
            meets = rows.frame.select(meets=translation.of(condition.tree)).to_series()
        except (pl.exceptions.PolarsError, OverflowError) as error:
            reason = first_line(error)
            raise DataError(f"--where {condition.text!r} does not fit {rows.table.source} ({reason}).") from error
        counts = translation.count_no_numbers()
        if not meets.any():
            raise DataError(
                f"No row of {rows.table.source} meets --where {condition.text!r}{_examples(rows, condition)}."
            )
        rows.filter(meets)
        rows.notes.append(f"--where {condition.text!r} keeps {len(rows):,} of {before:,} rows{counts}.")


class _Translation:
    """Makes an expression of polars of the tree of a condition, for the types that the columns have."""

    def __init__(self, rows: Rows, condition: Condition, time: str | None, time_format: str | None) -> None:
        self.rows, self.condition = rows, condition
        self.time, self.time_format = time, time_format
        self.as_numbers: dict[str, None] = {}  # columns of text that were compared with numbers

    def of(self, node: Comparison | Group) -> pl.Expr:
        if isinstance(node, Comparison):
            return self.comparison(node.column, node.operator, node.values)
        parts = [self.of(part) for part in node.parts]
        if node.word == "not":
            return ~parts[0]
        return pl.all_horizontal(parts) if node.word == "and" else pl.any_horizontal(parts)

    def comparison(self, name: str, word: str, values: list[Any]) -> pl.Expr:
        if word in ("is", "is not"):
            return self.missing(name) if word == "is" else ~self.missing(name)
        if word == "is true":
            return self.column_for(name, values)
        is_ordered = word in MIRRORED
        if is_ordered:
            self.refuse_quoted_numbers(name, values, word)
        column, values = self.as_moments(name, values, is_ordered) or (
            self.column_for(name, values),
            self.values_for(name, values),
        )
        if word in ("in", "not in"):
            # The values are compared one by one, because `is_in` takes no integers for a column of floats.
            inside = pl.any_horizontal([column == pl.lit(value) for value in values])
            return inside if word == "in" else ~inside
        comparison: pl.Expr = COMPARISONS[word](column, pl.lit(values[0]))
        return comparison

    def missing(self, name: str) -> pl.Expr:
        column, kind = pl.col(name), self.rows.frame.schema[name]
        if kind == pl.String and self.rows.table.is_text:
            return column.is_null() | column.is_in(MISSING_TEXT)
        return column.is_null() | column.is_nan() if kind.is_float() else column.is_null()

    def as_moments(self, name: str, values: list[Any], ordered: bool) -> tuple[pl.Expr, list[Any]] | None:
        """A column of text or numbers and the values as moments, or None where they are compared as they are.

        Moments are compared in the column of times and in every column of text that is compared with ISO dates. Where
        not all cells of such a column are dates, == and in compare it as text.
        """
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
        """Values that are ISO dates, or dates in the form of the column of times, as moments; null for other values."""
        moments = date_times(texts)
        if not moments.null_count() or not is_time or self.time_format is None:
            return moments
        try:
            times, _ = read_times(texts, "--where", lambda row: f"value {row + 1}", self.time_format)
        except DataError:
            return moments
        return times.cast(pl.Datetime("us"))

    def refuse_quoted_numbers(self, name: str, values: list[Any], word: str) -> None:
        """Refuses to compare numbers of a text file as text, since as text '10' is less than '4'."""
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
                f"numbers stand without quotes: {name_in_condition(name)} {word} {values[0].strip()}."
            )

    def wants_dates(self, name: str) -> DataError:
        return DataError(
            f"--where {self.condition.text!r}: {name!r} holds dates; write them as '2024-05-31' or "
            "'2024-05-31T18:00:00'."
        )

    def column_for(self, name: str, values: list[Any]) -> pl.Expr:
        """The column in the type that these values have."""
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

    def values_for(self, name: str, values: list[Any]) -> list[Any]:
        """The values, as dates where the column has dates."""
        if not self.rows.frame.schema[name].is_temporal():
            return values
        dates = date_times(pl.Series(values, dtype=pl.String))
        if dates.null_count():
            raise self.wants_dates(name)
        return dates.to_list()

    def count_no_numbers(self) -> str:
        """The end of a note: how many cells that were compared with numbers are no numbers."""
        found = ""
        for name in self.as_numbers:
            wrong = pl.col(name).cast(pl.Float64, strict=False).is_null() & ~self.missing(name)
            if count := int(self.rows.frame.select(wrong.sum()).item()):
                found += f"; {count:,} cells of {name!r} are no numbers, and their rows are left out"
        return found


def _moments(column: pl.Expr, kind: Any) -> pl.Expr:
    column = column.dt.cast_time_unit("us")
    return column if kind.time_zone is None else column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _examples(rows: Rows, condition: Condition) -> str:
    """The end of an error: some values of the columns of text in a condition."""
    shown = ""
    for name in condition.columns:
        if rows.frame.schema[name] == pl.String:
            values = rows.frame[name].drop_nulls().unique(maintain_order=True).head(5).to_list()
            shown += f"; {name!r} holds " + ", ".join(map(repr, values))
    return shown
