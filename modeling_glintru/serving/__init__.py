"""Weights and histories to items."""

from ..models.item_sets import ItemSet
from .rebuild import RebuildReport, rebuild_all
from .recommender import Recommendation, Recommender
from .sqlite_store import SQLiteStateStore
from .store import Event, MemoryStateStore, UserStateStore
from .streaming import Observed, StreamingRecommender

__all__ = [
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
