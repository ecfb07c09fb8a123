"""The command `glintru`: prepare, train, evaluate, recommend, rebuild, export, push, compare, convert."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from huggingface_hub.errors import StrictDataclassError

from .._version import __version__
from ..errors import GlintRUError
from ..machine import is_main_process, leave, num_processes
from . import compare, convert, evaluate, export, prepare, push, rebuild, recommend, train

__all__ = ["app", "main"]

app = typer.Typer(
    name="glintru",
    help="GLINT-RU, a sequential recommender: interactions in, a model out, recommendations from it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_BAD_INPUT = 2
debug = False
# The order in which `glintru --help` shows them.
VERBS: tuple[Callable[..., None], ...] = (
    prepare.prepare,
    train.train,
    evaluate.evaluate,
    recommend.recommend,
    rebuild.rebuild,
    export.export,
    push.push,
    compare.compare,
    convert.convert,
)


def _version(value: bool) -> None:
    if value:
        print(f"glintru {__version__}")
        raise typer.Exit


@app.callback()
def before_the_verb(
    show_trace: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""
    global debug
    debug = show_trace
    from transformers.utils import logging

    # One bar and one table of ours; the libraries' own notes would tear them apart.
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Bad input ends in one line on standard error and exit code 2; `--debug` shows the traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # the reader (`head`) has enough: not an error of the input
            raise
        except (GlintRUError, StrictDataclassError, OSError) as error:
            if debug:
                raise
            if is_main_process():
                print(f"glintru: {' '.join(_sentence(error).split())}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_code", EXIT_BAD_INPUT)) from None
        except KeyboardInterrupt:
            print("glintru: stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    return wrapped


def _sentence(error: Exception) -> str:
    if isinstance(error, StrictDataclassError) and error.__cause__:
        return str(error.__cause__)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


for verb in VERBS:
    app.command()(one_line_errors(verb))


def main() -> None:
    """Entry point of the command `glintru`."""
    try:
        app()
    except SystemExit as end:
        if num_processes() > 1 and isinstance(end.code, int):
            leave(end.code)
        raise
