"""`glintru recommend --interactive`: items are typed one by one, by id or title."""

from __future__ import annotations

import bisect
import itertools
from typing import Any

from ..models.configuration_glintru import GlintRUError
from ..terminal import print_lines, printable
from .item_files import parse_item_id, read_filters

CHOICES = 20  # how many titles are offered at most


def recommend_interactively(
    model: str,
    *,
    top_k: int,
    exclude_seen: bool | None,
    allowed: str | None,
    exclude: str | None,
    item_column: str | None,
    device: str,
) -> None:
    """Reads items from the terminal until `quit` or its end, and shows the next ones after each."""
    from ..machine import pick_device
    from ..models.loading import load_model_folder
    from ..serving import Recommendation
    from ..serving.recommender import ClickSession
    from .printing import recommendation_table

    where: Any = pick_device(device)
    recommender, processor = load_model_folder(model)
    filters = read_filters(allowed, exclude, item_column, processor)
    session = ClickSession(recommender.to(where), processor, top_k, exclude_seen, **filters)
    titles = TitleIndex(processor)
    what = "an item id" if processor.item_titles is None else "an item id or the beginning of a title"
    print(f"Type {what}; undo takes the newest back, quit ends.")
    while (line := _ask("> ")) is not None and line != "quit":
        if not line:
            continue
        if line == "undo":
            try:
                print_lines(f"Without {_name(processor, session.undo())}: {_items(len(session.clicks))}")
            except GlintRUError as error:
                print_lines(f"{error}")
            continue
        chosen = _choose(processor, titles.find(line), line)
        if chosen is not None:
            items = session.click(chosen)
            print_lines(f"{_name(processor, chosen)}, {_items(len(session.clicks))}. Next:")
            print_lines(recommendation_table(Recommendation(items, 0)))


class TitleIndex:
    """Finds items by id or by the beginning of their titles, in either case of letters."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        titles = processor.item_titles or ()
        self.sorted = sorted((title.casefold(), place) for place, title in enumerate(titles) if title)

    def find(self, text: str) -> list[Any]:
        """The raw ids that are meant: one where it is sure, up to `CHOICES + 1` to choose from, or none."""
        try:
            raw = parse_item_id(self.processor, text)
        except GlintRUError:  # the ids are integers and this is a title
            raw = None
        if raw is not None and raw in self.processor:
            return [raw]
        start = text.casefold()
        first = bisect.bisect_left(self.sorted, (start, -1))
        found: list[tuple[str, Any]] = []
        for title, place in itertools.islice(self.sorted, first, None):
            if not title.startswith(start) or len(found) > CHOICES:
                break
            found.append((title, self.processor.item_ids[place]))
        exact = [raw for title, raw in found if title == start]
        return exact if len(exact) == 1 else [raw for _, raw in found]


def _choose(processor: Any, found: list[Any], line: str) -> Any:
    if not found:
        print_lines(f"No item has the id {line!r}, and no title begins with it.")
        return None
    if len(found) == 1:
        return found[0]
    for number, raw in enumerate(found[:CHOICES], 1):
        print_lines(f"{number:>3}  {_name(processor, raw)}")
    if len(found) > CHOICES:
        print("     and more: type more of the title to see them")
    answer = _ask(f"Which one, 1 to {min(len(found), CHOICES)}? ")
    if answer is None or not answer.isdecimal() or not 1 <= int(answer) <= min(len(found), CHOICES):
        print("None of them.")
        return None
    return found[int(answer) - 1]


def _ask(prompt: str) -> str | None:
    try:
        return input(prompt).strip()
    except EOFError:
        print()
        return None


def _name(processor: Any, raw: Any) -> str:
    title = processor.title(raw)
    return printable(raw if title is None else f"{title} ({raw})")


def _items(count: int) -> str:
    return f"{count} item{'' if count == 1 else 's'} so far"
