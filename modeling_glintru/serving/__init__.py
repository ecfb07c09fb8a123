"""Weights and histories to items."""

from .recommender import Recommendation, Recommender

__all__ = ["Recommendation", "Recommender"]
