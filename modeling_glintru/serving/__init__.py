"""Weights and histories to items."""

from ..models.item_sets import ItemSet
from .recommender import AddedItems, Recommendation, Recommender
from .sqlite_store import SQLiteStateStore
from .store import Event, MemoryStateStore, UserStateStore
from .streaming import Observed, RebuildReport, StreamingRecommender, rebuild_all

__all__ = [
    "AddedItems",
    "Event",
    "ItemSet",
    "MemoryStateStore",
    "Observed",
    "RebuildReport",
    "Recommendation",
    "Recommender",
    "SQLiteStateStore",
    "StreamingRecommender",
    "UserStateStore",
    "rebuild_all",
]
