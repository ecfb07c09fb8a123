"""`glintru evaluate`."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..errors import DataError
from ..recipe import GivenSplit
from ..terminal import print_lines
from .options import DataOption, DeviceOption, JsonOption, SetOption, TrustOption, trust, with_options_of
from .printing import print_evaluations


@with_options_of(GivenSplit, into="split_files")
@with_options_of(ReadingOptions, into="reading")
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Model folder or Hub repository; of several the first is compared with.", metavar="MODEL..."
        ),
    ],
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
    """Measure a trained model on interactions, split as in its own recipe; compare several.

    Example: glintru evaluate outputs/ml-1m --data interactions.parquet --set protocols="[full, pop100]"
    """
    from ..comparison.compare import check_same_split, compare_trained
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
    for model in models:
        trust(model, trust_remote_code)
    if len(models) > 1:
        check_same_split(models)
    found = {}
    for model in models:
        if len(models) > 1 and not as_json:
            print_lines(f"Model     {model}")
        found[model] = evaluate_model(
            model,
            lambda trained: with_data(
                change_recipe(for_another_table(trained, data), changes or []), data, {**split_files, **reading}
            ),
            split,
            as_is=as_is,
            device=device,
            progress=not quiet and not as_json,
            say=partial(print_lines, file=sys.stderr if as_json else None),
        )
    metrics = {model: numbers for model, (_, numbers) in found.items()}
    measured = {model: next(iter(evaluations.values())) for model, (evaluations, _) in found.items()}
    differences = compare_trained(measured, metrics)
    whole = {"models": metrics, "differences": differences} if len(models) > 1 else metrics[models[0]]
    if output is not None:
        write_metrics_json(output, whole)
    if as_json:
        print(json.dumps(whole, indent=2))
        return
    seen = any(numbers["trained_on_targets"] for numbers in metrics.values())
    mark = f"\n{'A' if len(models) > 1 else 'THE'} MODEL WAS TRAINED ON SOME OF THESE TARGETS" if seen else ""
    if len(models) == 1:
        print_evaluations(found[models[0]][0], split, mark)
    else:
        _print_differences(measured, differences, split, mark)


def _print_differences(measured: dict[str, Any], differences: dict[str, Any], split: str, mark: str) -> None:
    """Each model's metrics in the ranking that is served, and the paired differences to the first."""
    from ..evaluation import format_table

    first = next(iter(measured.values()))
    tables = {model: evaluation.table() for model, evaluation in measured.items()}
    served = "past items too" if first.main.endswith("_with_history") else "past items left out"
    title = f"{split.capitalize()}, {first.num_users:,} users: all items ranked, {served}; 95 % intervals{mark}"
    print_lines(f"\n{title}\n\n{format_table(tables, first.headline)}\n")
    for model, entry in differences.items():
        bounds = f"[{entry['low']:+.4f}, {entry['high']:+.4f}]"
        print_lines(
            f"{model} minus {entry['to']}:\n  {entry['metric'].upper()} {entry['value']:+.4f} {bounds}, {entry['is']}"
        )
    print_lines(
        "\nDifferences are paired, over the same users; a model is better or worse only where the interval excludes "
        "zero."
    )
