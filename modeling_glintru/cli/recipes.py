"""`glintru recipes`."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="A recipe, to print it as YAML; or the word rule, for how settings are chosen."),
    ] = None,
) -> None:
    """List the named recipes, print one of them, or print how settings are chosen from the data.

    Example: glintru recipes rule
    """
    from ..recipe import list_recipes, load_recipe
    from ..recipe.rule import rule_table

    if name == "rule":
        print(rule_table())
    elif name is not None:
        print(load_recipe(name).to_yaml(), end="")
    else:
        for known in list_recipes():
            text = f"{known}: {load_recipe(known).description}"
            print(textwrap.fill(text, 80, subsequent_indent="    ", break_on_hyphens=False))
        print(
            "\nglintru recipes NAME prints one, and glintru train --recipe NAME trains by it.\n"
            "Without --recipe, settings are chosen from the data: see glintru recipes rule."
        )
