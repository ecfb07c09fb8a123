"""A card as text: its header, the name of its repository, and the line that tells whether somebody edited it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ..errors import GlintRUError
from ..models.loading import first_line
from ..models.untrusted_text import parse_yaml

__all__ = ["CARD_FILE", "PLACEHOLDER", "CardError", "card_header", "check_card", "is_signed", "sign", "with_repository"]

CARD_FILE = "README.md"
PLACEHOLDER = "YOUR_NAME/"  # before the model's name, until a push knows the repository
SIGNATURE = re.compile(
    r"\n*<!-- Written by glintru, ([0-9a-f]{16})\. A push replaces it only where unchanged\. -->\s*$"
)
HEADER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*$", flags=re.DOTALL | re.MULTILINE)


class CardError(GlintRUError):
    """A model card that the Hub would not take."""


def card_header(text: str) -> dict[str, Any]:
    """The fields of a card's YAML header; empty where it has none.

    Raises:
        CardError: The header is not YAML, does not end, or is no mapping.
    """
    text = text.replace("\r\n", "\n")
    if not text.lstrip().startswith("---"):
        return {}
    found = HEADER.match(text)
    if found is None:
        raise CardError(f"the header of {CARD_FILE} begins with --- but has no second line ---")
    try:
        header = parse_yaml("\n" + found[1])  # the line of the first --- counts
    except ValueError as error:
        raise CardError(f"the YAML header of {CARD_FILE} is broken: {first_line(error)}") from error
    if header is None:
        return {}
    if not isinstance(header, dict):
        raise CardError(f"the YAML header of {CARD_FILE} must be a mapping, but got {type(header).__name__}")
    return header


def check_card(text: str) -> None:
    """Makes sure that the header can be read back, evaluation results included; nothing is asked of the Hub.

    Raises:
        CardError: As `card_header`, or evaluation results in a form that the client does not know.
    """
    from huggingface_hub import ModelCardData

    header = card_header(text)
    try:
        ModelCardData(**header)
    except Exception as error:  # ValueError, KeyError, TypeError: whatever a damaged header runs into
        raise CardError(f"the header of {CARD_FILE} cannot be read: {first_line(error)}") from error


def with_repository(text: str, repo_id: str) -> str:
    """The card with the repository's name in place of the placeholder."""
    return re.sub(re.escape(PLACEHOLDER) + r"[\w.-]+", repo_id, text)


def sign(text: str) -> str:
    """The text with a last line that no longer fits once somebody edits what is above it."""
    body = SIGNATURE.sub("", text.replace("\r\n", "\n")).rstrip()
    return f"{body}\n\n<!-- Written by glintru, {_digest(body)}. A push replaces it only where unchanged. -->\n"


def is_signed(text: str) -> bool:
    """Whether the text is as `sign` left it."""
    text = text.replace("\r\n", "\n")
    found = SIGNATURE.search(text)
    return found is not None and found[1] == _digest(text[: found.start()].rstrip())


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()[:16]
