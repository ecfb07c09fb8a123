"""What a person reads in a terminal: lines of at most 80 columns, without characters that a terminal obeys.

Item ids, user ids, titles and the cells of a table come from anywhere. Written to a terminal as they are, they could
move its cursor, clear it, or let a line be read from right to left.
"""

from __future__ import annotations

import re
import sys
import textwrap
from typing import Any, TextIO

__all__ = ["WIDTH", "fold", "print_error", "print_lines", "printable", "shorten"]

WIDTH = 80
LABEL = 10  # columns of a label and the blanks after it, as in "Split     leave_one_out"

# C0, delete and C1; the marks, embeddings, overrides and isolates of the direction of writing; the two separators that
# end a line; and halves of surrogate pairs, which no terminal can encode.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: Any) -> str:
    r"""The text on one line, with each character that a terminal obeys written as its escape, such as `\x1b`.

    What is escaped already stays as it is. JSON needs none of this: it has escapes of its own.
    """
    return UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), str(text))


def shorten(text: Any, width: int) -> str:
    """The printable text, cut to `width` characters with an ellipsis at its end where it is longer."""
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def fold(text: str, indent: str | None = None) -> str:
    """The text with its lines folded to at most 80 columns, and printable.

    Args:
        text: Lines. One word, such as a path, may be longer than 80 columns: it is never broken.
        indent: Stands before each folded part of a line. Where it is None, parts stand below the text of a line with a
            label, two columns further in, and below the beginning of any other line.
    """
    folded = []
    for line in text.split("\n"):
        line = printable(line)
        if len(line) > WIDTH:
            start = line[: len(line) - len(line.lstrip())]
            below = " " * (LABEL + 2) if line[LABEL - 2 : LABEL] == "  " else start
            line = textwrap.fill(
                line,
                WIDTH,
                subsequent_indent=below if indent is None else indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        folded.append(line)
    return "\n".join(folded)


def print_lines(text: str, file: TextIO | None = None) -> None:
    """Prints the text as `fold` gives it, to standard output where no file is named."""
    print(fold(text), file=file, flush=True)


def print_error(sentence: str) -> None:
    """Prints what was wrong to standard error, after the name of the command.

    A terminal gets folded lines; a file or another program gets one line, which it can search.
    """
    line = printable(f"glintru: {' '.join(sentence.split())}")
    print(fold(line, "  ") if sys.stderr.isatty() else line, file=sys.stderr)
