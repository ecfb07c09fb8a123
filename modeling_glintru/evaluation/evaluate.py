"""Ranks every target of a split in one pass, and keeps the ranks with the tables of metrics made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..data.histories import arrow_view, history_lengths, read_request_gaps, read_rows, users_of_rows
from ..data.windows import check_has_gaps
from ..errors import DataError
from .metrics import bootstrap_interval, per_user_metrics
from .ranking import MISSED, NegativeSampler, check_indices, parse_protocol, rank_among, rank_targets
from .scorers import Scorer

__all__ = ["Evaluation", "MetricTable", "evaluate"]

MetricTable = dict[str, dict[str, float]]  # {"ndcg@10": {"value": …, "low": …, "high": …}, …}
MAX_SCORES = 2**25  # The scores of one batch: 128 MB in float32.


@dataclass(frozen=True)
class Evaluation:
    """Ranks of all targets of a split, under each protocol.

    Attributes:
        ranks: For each column the ranks of the targets, int64 (num_targets,), in the order of the split; 1 is the best.
            Each protocol P has two columns. In `P` past items are not recommended: a target that stands in its user's
            history is a miss and has the rank `MISSED`. In `P_with_history` past items compete with all others. The
            ranking that the model serves comes first.
        ks: Cutoffs of the metrics.
        seed: Seed of the sampled items and of the intervals.
        num_bootstrap: Resamples of an interval, unless `table` is given another number.
        main: The column of the ranking that is served: `full`, or `full_with_history` where past items are recommended
            again.
        recurring: Share of the targets that stand in the history before them.
        users: The user of each target, int64 (num_targets,), counted from 0; None where each user has one target.
    """

    ranks: dict[str, np.ndarray]
    ks: tuple[int, ...]
    seed: int
    num_bootstrap: int = 1000
    main: str = "full"
    recurring: float = 0.0
    users: np.ndarray | None = field(default=None, compare=False)
    _tables: dict[Any, MetricTable] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_targets(self) -> int:
        """How many targets were ranked."""
        return len(next(iter(self.ranks.values())))

    @property
    def num_users(self) -> int:
        """How many users these targets belong to."""
        return self.num_targets if self.users is None else int(self.users.max()) + 1

    def table(
        self, column: str | None = None, num_bootstrap: int | None = None, confidence: float = 0.95
    ) -> MetricTable:
        """Means over targets with bootstrap intervals over users, as Python floats; computed once and remembered.

        Args:
            column: A key of `ranks`; by default `main`.
            num_bootstrap: Resamples of an interval; by default those of the evaluation.
            confidence: Share of the resampled means inside an interval.

        Raises:
            DataError: There is no such column.
        """
        column = column or self.main
        if column not in self.ranks:
            raise DataError(f"no ranks named {column!r}, this evaluation has: {', '.join(self.ranks)}")
        num_bootstrap = num_bootstrap or self.num_bootstrap
        key = (column, num_bootstrap, confidence)
        if key not in self._tables:
            table = self._tables[key] = {}
            for name, values in per_user_metrics(self.ranks[column], self.ks).items():
                low, high = bootstrap_interval(values, num_bootstrap, confidence, self.seed, self.users)
                table[name] = {"value": float(values.mean()), "low": low, "high": high}
        return self._tables[key]

    @property
    def headline(self) -> list[str]:
        """The metrics that people are shown first: NDCG, HR and MRR at the smallest cutoff."""
        return [f"{metric}@{min(self.ks)}" for metric in ("ndcg", "hr", "mrr")]

    def means(self) -> dict[str, float]:
        """The means of `table()`, the ranking that is served, without their intervals."""
        return {name: entry["value"] for name, entry in self.table().items()}

    def tables(self, split: str) -> dict[str, MetricTable]:
        """All tables under the names that `metrics.json` uses: `test`, `test_with_history`, `test_pop100`, …"""
        return {self.table_name(split, column): self.table(column) for column in self.ranks}

    def table_name(self, split: str, column: str | None = None) -> str:
        """The name in `tables(split)` of a column, by default of the ranking that is served."""
        return split + f"_{column or self.main}".replace("_full", "")


def evaluate(
    scorer: Scorer,
    split_dataset: Dataset,
    *,
    ks: Sequence[int] = (10, 20),
    protocols: Sequence[str] = ("full",),
    item_counts: np.ndarray | None = None,
    recommend_seen: bool = False,
    batch_size: int = 128,
    seed: int = 42,
    num_bootstrap: int = 1000,
    progress: bool = True,
    description: str = "evaluate",
) -> Evaluation:
    """Ranks every target of a split as `Recommender.recommend` would, with and without the user's past items.

    The protocol `full` ranks the target against all items. `pop100` ranks it against 100 items that are drawn with
    replacement with probability proportional to their training popularity, `uni100` against 100 items that are drawn
    uniformly; the target is never drawn. A sampled metric is about three times larger than a full one and not
    comparable to it (Krichene and Rendle 2020). `pop100_with_history` is what RecBole does for sequential models,
    except that RecBole counts popularity over all splits. The columns are described at `Evaluation.ranks`.

    A batch has at most 2**25 scores. No result depends on the batch size.

    Args:
        scorer: Gives the scores of all items after each history, see `Scorer`.
        split_dataset: Rows `{item_ids: full chronological history, target: item index}`, with `time_gaps` for a scorer
            that needs them. Where users have several targets, `user_id` names the user of each row, and the rows of one
            user follow each other.
        ks: Cutoffs of the metrics.
        protocols: Any of `full`, `pop100`, `uni100`.
        item_counts: Occurrences in the training histories, integer, (vocab_size,); needed by `pop100`.
        recommend_seen: Whether the ranking that is served recommends past items again
            (`GlintRUProcessor.recommend_seen`).
        batch_size: The most rows of a batch.
        seed: Seed of the sampled items and of the intervals.
        num_bootstrap: Resamples of an interval in the tables.
        progress: Whether to show a progress bar.
        description: Name of the progress bar.

    Raises:
        DataError: The split is empty or lacks a column, an item index is outside the scores, a protocol is unknown,
            `pop100` has no counts, or the scores have another shape than (B, vocab_size).
    """
    parsed = {name: parse_protocol(name) for name in protocols}
    if not parsed or batch_size < 1 or not ks:
        raise DataError("an evaluation needs at least one protocol, one cutoff k and a batch_size of 1 or more")
    if item_counts is None and any(kind == "pop" for kind, _ in parsed.values()):
        raise DataError("the protocol 'pop100' needs item_counts, the occurrences of each item in the training split")
    if len(split_dataset) == 0:
        raise DataError("the split has no row to evaluate; choose another split or keep users with longer histories")
    timed = bool(getattr(scorer, "needs_time_gaps", False))
    if timed:
        check_has_gaps(split_dataset)
    view = arrow_view(split_dataset, ["item_ids", "target"])
    times = arrow_view(split_dataset, ["time_gaps"]) if timed else None
    vocab_size = scorer([np.ones(1, dtype=np.int64)]).shape[-1]  # item 1 always exists
    batch_size = max(1, min(batch_size, MAX_SCORES // vocab_size))
    weights: dict[str, Any] = {"pop": item_counts, "uni": np.ones(vocab_size, dtype=np.int64)}
    if item_counts is not None and len(item_counts) != vocab_size:
        raise DataError(f"item_counts has {len(item_counts)} entries, but the scorer has {vocab_size} columns")
    samplers = {kind: NegativeSampler(weights[kind], seed) for kind, _ in parsed.values() if kind != "full"}
    # Long histories come first: rows of similar length share a batch, and too little memory shows at once.
    order = np.argsort(-history_lengths(split_dataset), kind="stable")
    ends = ("_with_history", "") if recommend_seen else ("", "_with_history")
    ranks = {name + end: np.zeros(len(order), dtype=np.int64) for name in parsed for end in ends}
    recurring = 0
    with tqdm(total=len(order), desc=description, unit="user", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            histories, target_array = read_rows(view, rows)
            targets = torch.from_numpy(target_array)
            past = pad_sequence([torch.from_numpy(history) for history in histories], batch_first=True)
            target = targets.unsqueeze(1)
            # The indices are checked before they reach the model, where a wrong one fails far from its cause.
            check_indices(past, vocab_size, "an item of a history")
            check_indices(targets, vocab_size, "a target")
            is_past = (past == target).any(dim=1)
            recurring += int(is_past.sum())
            given = (histories,) if times is None else (histories, read_request_gaps(times, rows))
            scores = scorer(*given)
            if scores.shape != (len(rows), vocab_size):
                raise DataError(
                    f"the scorer returned scores of shape {tuple(scores.shape)} for {len(rows)} histories; "
                    f"allowed is ({len(rows)}, {vocab_size})"
                )
            for name, (kind, count) in parsed.items():
                for column, excluded in ((name, past), (f"{name}_with_history", past[:, :0])):
                    if kind == "full":
                        found = rank_targets(scores, targets, excluded)
                    else:
                        drawn = samplers[kind].draw(rows, torch.cat([excluded, target], dim=1), count)
                        found = rank_among(scores, targets, drawn)
                        if excluded.numel():
                            found = found.masked_fill(is_past.to(found.device), MISSED)
                    ranks[column][rows] = found.cpu().numpy()
            bar.update(len(rows))
    main = "full" + ends[0] if "full" in parsed else next(iter(ranks))
    return Evaluation(ranks, tuple(ks), seed, num_bootstrap, main, recurring / len(order), users_of_rows(split_dataset))
