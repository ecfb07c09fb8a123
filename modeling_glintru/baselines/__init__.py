"""What GLINT-RU must beat: models behind the same head (one file each), and scorers that are not trained.

A new model is one file here and one line in `auto.py`, see `docs/adding_a_model.md`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .item_knn import ItemKNNScorer
    from .own_items import OwnItemsScorer
    from .popularity import PopularityScorer

__all__ = ["ItemKNNScorer", "OwnItemsScorer", "PopularityScorer"]


def __getattr__(name: str) -> Any:
    # Late, so that `import modeling_glintru`, which imports the models, does not import the evaluation.
    files = {"ItemKNNScorer": "item_knn", "OwnItemsScorer": "own_items", "PopularityScorer": "popularity"}
    if name not in files:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{files[name]}", __name__), name)
