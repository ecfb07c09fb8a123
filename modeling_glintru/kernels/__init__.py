"""Fast forms of the operations in `models/ops_glintru.py`. Nothing here travels to the Hub, and models never import it.

`c/` holds the kernels in C, `build` compiles them and `calls` calls them. `recurrence`, `block`, `scan`, `softmax` and
`running_sums` each give `FORMS`: by the name of an operation, the condition under which a form serves, and the form.
`step` is the whole model's step by one click.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import block, recurrence, running_sums, scan, softmax

__all__ = ["register"]

SIGNATURES = 1  # the arguments that these forms were written for, see `models/ops_glintru.py`


def register(table: dict[str, list[tuple[Callable[..., bool], Callable[..., Any]]]], signatures: int) -> None:
    """Puts the forms into a model's table of fast forms.

    Args:
        table: `ops_glintru.FAST_FORMS`; of this package, or of code that was loaded from the Hub.
        signatures: `ops_glintru.SIGNATURES`: code with other arguments keeps its plain operations.
    """
    if signatures != SIGNATURES:
        return
    form: Any
    for forms in (recurrence.FORMS, block.FORMS, scan.FORMS, scan.CHUNKED, softmax.FORMS, running_sums.FORMS):
        for name, form in forms.items():
            table.setdefault(name, []).append(form)
