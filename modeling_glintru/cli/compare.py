"""`glintru compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..recipe import GivenSplit
from .options import DataOption, SetOption, parse_ids, with_options_of


@with_options_of(GivenSplit, into="split_files")
@with_options_of(ReadingOptions, into="reading")
def compare(
    data: DataOption = None,
    models: Annotated[
        str,
        typer.Option(
            "--models",
            help="Models, files of your own as mine.py:MyModel, or recipes by name or file, separated by commas; the "
            "others are compared with the first.",
        ),
    ] = "glintru,sasrec,gru4rec",
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="Folder of the results; runs that are in it do not run again.")
    ] = Path("outputs/compare"),
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of the runs of each model.")] = "1,2,3",
    changes: SetOption = None,
    search: Annotated[
        int, typer.Option("--search", help="Try so many settings for each model, on validation, such as 9.")
    ] = 0,
    space: Annotated[
        Path | None,
        typer.Option("--space", help="YAML file with the values that --search tries: a list for each key."),
    ] = None,
    *,
    split_files: dict[str, Any],
    reading: dict[str, Any],
    workers: Annotated[int, typer.Option("--workers", help="Runs at the same time, one core each.")] = 1,
    max_minutes: Annotated[
        float | None, typer.Option("--max_minutes", help="Stop after so many minutes, with a checkpoint.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry_failed", help="Run again what failed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Only print what would run, and about how long it would take.")
    ] = False,
) -> None:
    """Compare models on your own table: the same split, candidates and seeds, and paired intervals.

    Each model has the settings that the package's rule chooses for the table. The comparison may be stopped at any
    time; the same command goes on.

    Example: glintru compare --data interactions.csv --models glintru,sasrec --output_dir outputs/compare
    """
    from ..comparison import declare, run_comparison
    from ..comparison.compare import check_options
    from ..errors import RecipeError
    from ..terminal import print_lines

    check_options(workers, max_minutes)
    if data is None and not split_files:
        raise RecipeError("say which table to compare on: --data FILE (csv, tsv, parquet, jsonl, inter)")
    texts = parse_ids(seeds, "--seeds")
    if not all(text.isdecimal() for text in texts):
        raise RecipeError(f"--seeds must be numbers separated by commas, as in 1,2,3, but got {seeds!r}")
    comparison = declare(
        data,
        parse_ids(models, "--models"),
        options={**split_files, **reading},
        changes=changes or [],
        seeds=[int(text) for text in texts],
        search=search,
        space=space,
        say=print_lines,
    )
    run_comparison(
        comparison,
        output_dir,
        workers=workers,
        max_minutes=max_minutes,
        retry_failed=retry_failed,
        dry_run=dry_run,
        say=print_lines,
    )
