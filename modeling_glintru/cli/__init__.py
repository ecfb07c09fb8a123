"""The command `glintru` and its verbs, each of which is a file of this folder."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .._version import __version__
from ..machine import is_main_process, leave, num_processes
from ..terminal import print_error

__all__ = ["VERBS", "app", "main"]

# Each verb is a file with a function of its name. They are imported when they are run, for they import torch; so that
# `glintru --help` need not do it, their first sentences stand here again.
VERBS = {
    "prepare": "Read, filter and split interactions, once for many runs.",
    "train": "Train a model on interactions, measure it, and write a folder that from_pretrained loads.",
    "recipes": "List the named recipes, print one of them, or print how settings are chosen from the data.",
    "evaluate": "Measure a trained model on interactions, split as in its own recipe; compare several.",
    "recommend": "Recommend the next items: after a history, for users of a table, for all of them, or as you type.",
    "add-items": "Add items that nobody has taken yet to a trained model, by what is known of them.",
    "rebuild": "Compute the states of all users anew, from their events, after the weights have changed.",
    "export": "Write a model for serving without torch: whole histories, and one item onto a state.",
    "push": "Upload a model folder to the Hub, in one commit, with the login of `hf auth login` or HF_TOKEN.",
    "compare": "Compare models on your own table: the same split, candidates and seeds, and paired intervals.",
    "convert": "Make a model folder of a checkpoint of the authors' code.",
}


class Verbs(TyperGroup):
    """The verbs in their order, imported one by one. (typer brings a click of its own, hence the loose types.)"""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            near = difflib.get_close_matches(cmd_name, VERBS, n=1)
            ctx.fail(f"There is no command {cmd_name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
        name = cmd_name.replace("-", "_")
        verb = getattr(import_module(f".{name}", __name__), name)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name)(one_line_errors(verb))
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


app = typer.Typer(
    cls=Verbs,
    name="glintru",
    help="GLINT-RU, a sequential recommender: interactions in, a model out, recommendations from it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_BAD_INPUT = 2
debug = False


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
        except Exception as error:
            if debug or not _is_of_the_input(error):
                raise
            if is_main_process():
                print_error(_sentence(error))
            raise typer.Exit(getattr(error, "exit_code", EXIT_BAD_INPUT)) from None
        except KeyboardInterrupt:
            print_error("stopped")
            raise typer.Exit(130) from None

    return wrapped


def _is_of_the_input(error: Exception) -> bool:
    from huggingface_hub.errors import StrictDataclassError

    from ..errors import GlintRUError

    return isinstance(error, (GlintRUError, StrictDataclassError, OSError)) or _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    """NumPy's and Python's own error, and those of PyTorch for a processor and for a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("not enough memory", "can't allocate memory", "out of memory"))
    )


def _sentence(error: Exception) -> str:
    from huggingface_hub.errors import StrictDataclassError

    if isinstance(error, StrictDataclassError) and error.__cause__:
        return str(error.__cause__)
    if _is_out_of_memory(error):
        return (
            f"there is not enough memory ({str(error)[:100] or 'no more is given'}): try a smaller train_batch_size, "
            "eval_batch_size, max_length or hidden_size, a --top_k that is smaller, or less data"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def main() -> None:
    """Entry point of the command `glintru`."""
    try:
        app()
    except SystemExit as end:
        if num_processes() > 1 and isinstance(end.code, int):
            leave(end.code)
        raise
