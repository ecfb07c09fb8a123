"""`glintru train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..machine import is_main_process
from ..recipe import GivenSplit
from ..terminal import print_lines
from .options import (
    DataOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    TextEncoderOption,
    TitleColumn,
    TitlesOption,
    TrustOption,
    all_overrides,
    asked_for,
    trust,
    with_options_of,
)
from .printing import print_evaluations, print_loading_lines, print_recommendation


@with_options_of(GivenSplit, into="split_files")
@with_options_of(ReadingOptions, into="reading")
def train(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where the model folder goes.")],
    recipe: RecipeOption = None,
    data: DataOption = None,
    changes: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Another model than the recipe's, such as sasrec, or one of your own: mine.py:MyModel.",
            metavar="NAME",
        ),
    ] = None,
    from_model: Annotated[
        str | None,
        typer.Option("--from", help="Fine-tune this model folder or Hub repository, gently.", metavar="MODEL"),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            "--items",
            help="A table of what is known of the items: text, categories, numbers, vectors. With --from also a word "
            "for items that MODEL does not know: add them (default), learn from the known ones only, or keep only "
            "MODEL's block and learn new embeddings for all items (another shop).",
            metavar="FILE|add|known|new",
        ),
    ] = None,
    text_encoder: TextEncoderOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of every random number.")] = None,
    *,
    split_files: dict[str, Any],
    reading: dict[str, Any],
    item_titles: TitlesOption = None,
    title_column: TitleColumn = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --output_dir.")] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max_minutes", help="Be done after so many minutes, with the best model so far; see --resume."),
    ] = None,
    save_minutes: Annotated[
        float, typer.Option("--save_minutes", help="Minutes between two checkpoints within an epoch.")
    ] = 5.0,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Once measured, train anew on everything, held-out items too; keep that model."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Train a model on interactions, measure it, and write a folder that from_pretrained loads.

    Without --recipe, sizes and settings are chosen from the data; the run says which, and why. With --from they are
    the model's own, with a lower learning rate and fewer epochs.

    Example: glintru train --data interactions.csv --output_dir outputs/mine

    Example: glintru train --data interactions.csv --items items.csv --output_dir outputs/mine

    Example: glintru train --from outputs/mine --data november.csv --output_dir outputs/november
    """
    from ..jobs import train_and_evaluate
    from ..recipe.resolve import told_apart

    if from_model is not None:
        trust(from_model, trust_remote_code)
    word, table = told_apart(items or [])
    options = {**split_files, **reading, "item_titles": item_titles, "title_column": title_column}
    options |= {"items": table, "text_encoder": text_encoder}
    asked = asked_for(recipe, all_overrides(changes, seed, model), data, options, from_model=from_model, items=word)
    result, prepared, evaluations = train_and_evaluate(
        asked.recipe,
        output_dir,
        given=asked.given,
        overwrite=overwrite,
        resume=resume,
        max_minutes=max_minutes,
        save_minutes=save_minutes,
        refit=refit,
        progress=not quiet,
    )
    if not is_main_process():
        return
    run = result.summary()
    print_lines(
        f"\nTrained {run['epochs']:.4g} epochs in {run['seconds']:.0f} s ({run['seconds_per_epoch']:.1f} s each). "
        f"The weights are those of epoch {run['best_epoch']:g}, the best on validation; the model has "
        f"{run['num_parameters']:,} parameters."
    )
    _print_ending(result, output_dir)
    print_evaluations(evaluations, "test")
    _print_examples(result.model, prepared)
    print_loading_lines(str(output_dir), prepared.processor.decode(prepared.dataset["test"][0]["item_ids"][-3:]))


def _print_ending(result: Any, output_dir: Path) -> None:
    if result.refit is not None:
        print_lines(
            "The figures below were measured on a model trained without the held-out items; the weights in the folder "
            f"were then trained once more on everything: {result.refit['num_interactions']:,} interactions, "
            f"{result.refit['epochs']} epochs, {result.refit['seconds']:.0f} s."
        )
    if result.stopped is not None and (output_dir / "checkpoints").is_dir():
        print_lines(f"The {result.stopped.during} is not finished: the same command with --resume goes on with it.")


def _print_examples(model: Any, prepared: Any, count: int = 3) -> None:
    from ..serving import Recommender

    recommender = Recommender(model, prepared.processor)
    rows = prepared.dataset["test"].select(range(min(count, len(prepared.dataset["test"]))))
    histories = [prepared.processor.decode(row["item_ids"]) for row in rows]
    for row, history, found in zip(rows, histories, recommender.recommend(histories, 5), strict=True):
        print_recommendation(prepared.processor, row["user_id"], history, found, as_json=False)
