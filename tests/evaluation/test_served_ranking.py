"""The figure that is printed is the one that `recommend` earns, on data where 30 % of the targets recur."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import SequenceCollator
from modeling_glintru.data.prepare import PreparedData, prepare
from modeling_glintru.evaluation import (
    ItemKNNScorer,
    ModelScorer,
    OwnItemsScorer,
    PopularityScorer,
    RankingMetrics,
    evaluate,
    target_ranks,
)
from modeling_glintru.serving import Recommender

from ..data.test_recurrence import table


@pytest.fixture(scope="module")
def data() -> PreparedData:
    data = prepare(table(0.3), max_length=50)
    assert data.recurring == pytest.approx(0.3, abs=0.03)
    return data


@pytest.fixture(scope="module")
def model(data) -> GlintRUForSequentialRecommendation:
    torch.manual_seed(0)
    config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=16, num_attention_heads=2)
    model = GlintRUForSequentialRecommendation(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.5)  # so that what was taken scores high
    return model.eval()


def plain_ndcg(scores: np.ndarray, histories: list[list[int]], targets: list[int], recommend_seen: bool) -> float:
    """NDCG@10 in a few lines of numpy: sort, cut at ten, look where the target is."""
    values = []
    for row, history, target in zip(scores, histories, targets, strict=True):
        row = row.copy()
        row[0] = -np.inf
        if not recommend_seen:
            row[history] = -np.inf
        best = [item for item in np.argsort(-row, kind="stable")[:10].tolist() if row[item] > -np.inf]
        values.append(1 / np.log2(best.index(target) + 2) if target in best else 0.0)
    return float(np.mean(values))


@pytest.mark.parametrize("recommend_seen", [False, True])
def test_evaluate_equals_plain_numpy_and_the_recommendations(data, model, recommend_seen):
    test = data.dataset["test"]
    scorer = ModelScorer(model, data.processor.max_length)
    evaluation = evaluate(scorer, test, ks=(10,), recommend_seen=recommend_seen, progress=False)
    printed = evaluation.table()["ndcg@10"]["value"]
    histories, targets = test["item_ids"], test["target"]
    scores = scorer([np.array(history) for history in histories]).numpy()
    assert printed == pytest.approx(plain_ndcg(scores, histories, targets, recommend_seen), abs=1e-12)
    assert evaluation.recurring == np.mean([t in h for h, t in zip(histories, targets, strict=True)]) > 0.2
    # The other column is the other ranking.
    other = evaluation.table("full" if recommend_seen else "full_with_history")["ndcg@10"]["value"]
    assert other == pytest.approx(plain_ndcg(scores, histories, targets, not recommend_seen), abs=1e-12) != printed

    raw = [data.processor.decode(history) for history in histories]
    found = Recommender(model, data.processor).recommend(raw, 10, exclude_seen=not recommend_seen)
    lists = [[item["item_id"] for item in each.items] for each in found]
    wanted = data.processor.decode(targets)
    places = [row.index(item) if item in row else None for row, item in zip(lists, wanted, strict=True)]
    earned = np.mean([0.0 if place is None else 1 / np.log2(place + 2) for place in places])
    assert printed == pytest.approx(earned, abs=1e-12)


@pytest.mark.parametrize("recommend_seen", [False, True])
def test_the_trainer_validates_by_the_same_ranking(data, model, recommend_seen):
    rows = list(data.dataset["validation"])
    batch = SequenceCollator(50, exclude_seen=not recommend_seen)(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        ranks = target_ranks(model(**batch).logits, labels)
    found = RankingMetrics((10,))(type("Prediction", (), {"predictions": ranks.numpy()}))
    scorer = ModelScorer(model, 50)
    table = evaluate(scorer, data.dataset["validation"], recommend_seen=recommend_seen, progress=False).table()
    assert found["ndcg@10"] == pytest.approx(table["ndcg@10"]["value"], abs=1e-12)


def test_reference_models_are_ranked_alike(data):
    test = data.dataset["test"]
    histories, targets = test["item_ids"], test["target"]
    knn = ItemKNNScorer(data.dataset["train"], data.processor.vocab_size)
    for scorer in (PopularityScorer(data.item_counts), knn, OwnItemsScorer(data.item_counts)):
        scores = scorer([np.array(history) for history in histories]).numpy().astype(np.float64)
        scores += 1e-9 * np.arange(scores.shape[1])  # no ties, which evaluate counts against the scorer
        unique = type("Scores", (), {"__call__": lambda self, h, s=scores: _rows(s, histories, h)})()
        for recommend_seen in (False, True):
            table = evaluate(unique, test, recommend_seen=recommend_seen, progress=False).table()
            expected = plain_ndcg(scores, histories, targets, recommend_seen)
            assert table["ndcg@10"]["value"] == pytest.approx(expected, abs=1e-12)


def _rows(scores: np.ndarray, histories: list[list[int]], asked: list[np.ndarray]) -> torch.Tensor:
    """The rows of the scores that belong to histories, which are all different."""
    places = {tuple(history): row for row, history in enumerate(histories)}
    return torch.from_numpy(scores[[places.get(tuple(history.tolist()), 0) for history in asked]])


def test_own_items_come_in_their_order():
    counts = np.array([0, 5, 4, 3, 2, 1])
    history = np.array([4, 5, 4, 3])
    orders = {}
    for order in ("newest", "frequent"):
        scores = OwnItemsScorer(counts, order)([history, np.array([], np.int64)])
        orders[order] = [row[1:].argsort(descending=True).add(1).tolist() for row in scores]
        assert scores[0, 0] == -torch.inf
    assert orders["newest"] == [[3, 4, 5, 1, 2], [1, 2, 3, 4, 5]]
    assert orders["frequent"] == [[4, 3, 5, 1, 2], [1, 2, 3, 4, 5]]
