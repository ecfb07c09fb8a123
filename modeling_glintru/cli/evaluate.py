"""`glintru evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..errors import DataError
from ..recipe import GivenSplit
from .options import DataOption, DeviceOption, JsonOption, ModelArgument, SetOption, TrustOption, trust, with_options_of
from .printing import print_evaluations


@with_options_of(GivenSplit, into="split_files")
@with_options_of(ReadingOptions, into="reading")
def evaluate(
    model: ModelArgument,
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    changes: SetOption = None,
    *,
    split_files: dict[str, Any],
    reading: dict[str, Any],
    output: Annotated[Path | None, typer.Option("--output", help="Also write the numbers to this JSON file.")] = None,
    as_json: JsonOption = False,
    as_is: Annotated[
        bool, typer.Option("--as_is", help="Measure even on targets that the model trained on, and mark the figures.")
    ] = False,
    device: DeviceOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Measure a trained model on interactions, split as in its own recipe.

    Example: glintru evaluate outputs/ml-1m --data interactions.parquet --set protocols="[full, pop100]"
    """
    from ..errors import RecipeError
    from ..evaluation import write_metrics_json
    from ..jobs import evaluate_model, for_another_table, with_data
    from ..recipe import change_recipe

    if split not in ("test", "validation"):
        raise RecipeError(f"--split must be test or validation, but got {split!r}")
    if output is not None and not output.absolute().parent.is_dir():
        raise DataError(f"there is no folder {output.parent} for --output {output}")
    if output is not None and output.is_dir():
        raise DataError(f"--output must be a file, but {output} is a folder")
    trust(model, trust_remote_code)
    evaluations, metrics = evaluate_model(
        model,
        lambda trained: with_data(
            change_recipe(for_another_table(trained, data), changes or []), data, {**split_files, **reading}
        ),
        split,
        as_is=as_is,
        device=device,
        progress=not quiet and not as_json,
        say=_to_stderr if as_json else print,
    )
    if output is not None:
        write_metrics_json(output, metrics)
    if as_json:
        print(json.dumps(metrics, indent=2))
    else:
        mark = " (THE MODEL WAS TRAINED ON SOME OF THESE TARGETS)" if metrics["trained_on_targets"] else ""
        print_evaluations(evaluations, split, mark)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
