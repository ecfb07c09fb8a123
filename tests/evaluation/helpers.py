"""Small splits made by hand, and the slow, obvious way to rank."""

from __future__ import annotations

import math

import datasets
import numpy as np
import torch

from modeling_glintru.evaluation.ranking import MISSED


def make_split(histories: list[list[int]], targets: list[int] | None = None) -> datasets.Dataset:
    """A split as `prepare` writes it; without targets a training split."""
    columns = {"user_id": [f"u{row}" for row in range(len(histories))], "item_ids": histories}
    features = {"user_id": datasets.Value("string"), "item_ids": datasets.List(datasets.Value("int32"))}
    if targets is not None:
        columns["target"] = targets
        features["target"] = datasets.Value("int32")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def random_split(num_users: int, num_items: int, seed: int, longest: int = 12) -> datasets.Dataset:
    """Random histories, empty ones among them; a target is in the history now and then."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(1, num_items + 1, rng.integers(0, longest + 1)).tolist() for _ in range(num_users)]
    return make_split(histories, rng.integers(1, num_items + 1, num_users).tolist())


def naive_rank(scores: list[float], target: int, excluded: set[int]) -> int:
    """The rank by a loop over the items: whoever is not clearly worse stands before the target.

    A target that is excluded is never recommended.
    """
    if target in excluded:
        return MISSED
    rank = 1
    for item in range(1, len(scores)):
        if item == target or item in excluded:
            continue
        clearly_worse = (
            not math.isnan(scores[item]) and not math.isnan(scores[target]) and scores[item] < scores[target]
        )
        if not clearly_worse:
            rank += 1
    return rank


class HashScorer:
    """Scores that depend on the history only, with ties: for tests that change the batches."""

    def __init__(self, vocab_size: int, levels: int = 50) -> None:
        self.vocab_size = vocab_size
        self.levels = levels
        self.batch_sizes: list[int] = []

    def __call__(self, histories):
        self.batch_sizes.append(len(histories))
        rows = [
            np.random.default_rng([len(history), *history.tolist()]).integers(0, self.levels, self.vocab_size)
            for history in histories
        ]
        return torch.tensor(np.stack(rows), dtype=torch.float32)
