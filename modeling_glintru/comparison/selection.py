"""The part of a protocol that the command line asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.sources import NAMED_SOURCES
from ..errors import DataError, RecipeError, nearest_names
from ..recipe import load_recipe
from .protocol import DataProtocol, Protocol
from .schedule import Selection

__all__ = ["select", "select_for_report"]


def select(
    protocol: Protocol,
    data: Sequence[str] = (),
    rows: Sequence[str] = (),
    presets: Sequence[str] = (),
    ablate: Sequence[str] = (),
    first_look: bool = False,
) -> Selection:
    """What is to run.

    Args:
        protocol: What there is.
        data: `NAME=FILE`, or `NAME` where the protocol knows the source; in the order of the queue. Without any, the
            data sets whose source the protocol knows.
        rows: Models, presets and references; without any, all of them.
        presets: `NAME=RECIPE`, beside those of the protocol; for one data set at a time.
        ablate: Rows that are taken apart.
        first_look: See `Selection`.

    Raises:
        RecipeError: Something that there is not, or a preset with the name of a model.
        DataError: A data set without a source.
    """
    chosen: dict[str, DataProtocol] = {}
    for text in data:
        name, equals, source = text.partition("=")
        part = protocol.data_set(name)
        if equals and source not in NAMED_SOURCES and not Path(source).exists():
            raise DataError(f"--data {name}: there is no file {source!r}")
        chosen[name] = part.with_source(source) if equals else part
    if not data:
        chosen = {name: part for name, part in protocol.data.items() if part.recipe.source is not None}
    for name, part in chosen.items():
        if part.recipe.source is None:
            raise DataError(f"{name} needs its interactions: --data {name}=FILE")
    if not chosen:
        raise DataError(f"say on what: --data NAME=FILE, for {', '.join(protocol.data)}")
    return replace(_selection(protocol, chosen, rows, presets, ablate), first_look=first_look)


def select_for_report(protocol: Protocol, names: Sequence[str], data: Sequence[str] = ()) -> Selection:
    """Everything about the named data sets, or about those in `data`; nothing needs a source."""
    wanted = [text.partition("=")[0] for text in data]
    chosen = {name: protocol.data_set(name) for name in wanted or protocol.data if name in names or name in wanted}
    return _selection(protocol, chosen, (), (), ())


def _selection(
    protocol: Protocol,
    data: dict[str, DataProtocol],
    rows: Sequence[str],
    presets: Sequence[str],
    ablate: Sequence[str],
) -> Selection:
    recipes = {name: {key: load_recipe(file) for key, file in part.presets.items()} for name, part in data.items()}
    for text in presets:
        key, equals, file = text.partition("=")
        if not equals or not key or len(data) != 1:
            raise RecipeError(f"--preset is NAME=RECIPE, with one data set in --data, but got {text!r} for {len(data)}")
        recipes[next(iter(data))][key] = load_recipe(file)
    named = {key for part in recipes.values() for key in part}
    known = [*protocol.models, *protocol.references, *sorted(named)]
    for key in named & {*protocol.models, *protocol.references}:
        raise RecipeError(f"a preset cannot be called {key!r}, as a model is")
    for row in rows:
        if row not in known:
            raise RecipeError(f"There is no row {row!r} in this comparison; {nearest_names(row, known)}")
    wanted = list(rows) or known
    return Selection(
        data=data,
        models=tuple(row for row in wanted if row in protocol.models),
        references=tuple(row for row in wanted if row in protocol.references),
        presets={name: {key: part[key] for key in wanted if key in part} for name, part in recipes.items()},
        ablate=tuple(ablate),
    )
