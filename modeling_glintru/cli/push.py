"""`glintru push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import print_lines
from .options import TrustOption, trust


def push(
    folder: Annotated[Path, typer.Argument(help="Model folder.", metavar="FOLDER")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub.", metavar="OWNER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, made where it is missing.", metavar="BRANCH")
    ] = None,
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite_card", help="Replace the card even where it was edited on the Hub.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Only list what would be uploaded.")] = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Upload a model folder to the Hub, in one commit, with the login of `hf auth login` or HF_TOKEN.

    Example: glintru push outputs/ml-1m me/glintru-ml-1m --private
    """
    from ..hub import plan_push, push_folder

    trust(str(folder), trust_remote_code)
    if dry_run:
        print_lines(plan_push(folder, repo).describe())
        return
    result = push_folder(folder, repo, private=private or None, revision=revision, overwrite_card=overwrite_card)
    changed = ", ".join(result.changed) or "nothing, all of it was there already"
    print_lines(f"Changed: {changed}\n{result.url} at {result.commit}")
    if result.kept_card:
        print_lines("README.md was edited on the Hub and stays as it is there; --overwrite_card replaces it")
