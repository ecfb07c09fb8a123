"""Reference points that a trained model must beat; each is a scorer like `ModelScorer`."""

from __future__ import annotations

from .item_knn import ItemKNNScorer
from .popularity import PopularityScorer

__all__ = ["ItemKNNScorer", "PopularityScorer"]
