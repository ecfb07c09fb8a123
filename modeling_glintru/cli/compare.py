"""`glintru compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import parse_ids


def compare(
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="A data set of the protocol and its file; may be repeated.", metavar="NAME[=FILE]"),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="Name or YAML file of a protocol.", metavar="NAME|FILE")
    ] = "default",
    models: Annotated[
        str | None, typer.Option("--models", help="Only these rows, separated by commas, in this order.")
    ] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option("--preset", help="A row with fixed settings; may be repeated.", metavar="NAME=RECIPE"),
    ] = None,
    ablate: Annotated[
        list[str] | None, typer.Option("--ablate", help="Take this row apart; may be repeated.", metavar="ROW")
    ] = None,
    first_look: Annotated[
        bool,
        typer.Option(
            "--first_look",
            help="Before a model's own search: one run with the setting that the best search on the data chose.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option("--workers", help="Trials at the same time, one core each.")] = 1,
    max_minutes: Annotated[
        float | None, typer.Option("--max_minutes", help="Stop after so many minutes, with a checkpoint.")
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", help="Folder of the results; what is in it does not run again.")
    ] = Path("benchmarks/results/quality"),
    retry_failed: Annotated[bool, typer.Option("--retry_failed", help="Run again what failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Only print the queue and its estimated time.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write the page from what has run so far.")] = False,
    output: Annotated[Path, typer.Option("--output", help="The page that --report writes.")] = Path("docs/results.md"),
) -> None:
    """Compare models: the same search for each, final runs with several seeds, a page with intervals.

    It may be stopped at any time; the same command goes on. Several of them share the work.

    Example: glintru compare --data ml-100k --data ml-1m=interactions.parquet --workers 2
    """
    from ..comparison import Results, load_protocol, make_page, run_comparison, select

    chosen, files = load_protocol(protocol), Results(results)
    if report:
        written = make_page(chosen, files, data or [], output)
        print("Written: " + ", ".join(map(str, written)))
        return
    rows = [] if models is None else parse_ids(models, "--models")
    selection = select(chosen, data or [], rows, presets or [], ablate or [], first_look)
    run_comparison(
        chosen, selection, files, workers=workers, max_minutes=max_minutes, retry_failed=retry_failed, dry_run=dry_run
    )
