"""What is written and printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modeling_glintru.evaluation import (
    Evaluation,
    collect_metrics,
    format_table,
    library_versions,
    write_metrics_json,
)


def ranked(seed: int) -> Evaluation:
    rng = np.random.default_rng(seed)
    return Evaluation({name: rng.integers(1, 40, 60) for name in ("full", "full_with_history")}, (10, 20), seed)


def test_metrics_json_comes_back_as_it_went(tmp_path: Path) -> None:
    metrics = collect_metrics(
        ranked(0),
        validation=ranked(1),
        baselines={"popularity": ranked(2), "item_knn": ranked(3)},
        recipe={"name": "demo", "data": {"path": Path("a.csv")}},
        seed=np.int64(42),
        losses=np.array([0.5, np.float32(0.25)]),
    )
    write_metrics_json(tmp_path / "metrics.json", metrics)
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found["test"] == ranked(0).table("full")
    assert found["test_with_history"] == ranked(0).table("full_with_history")
    assert found["validation"] == ranked(1).table("full")
    assert found["item_knn"]["test_with_history"] == ranked(3).table("full_with_history")
    assert found["recipe"] == {"name": "demo", "data": {"path": "a.csv"}}
    assert found["seed"] == 42
    assert found["losses"] == [0.5, 0.25]
    assert found["num_test_users"] == 60
    assert found["versions"] == library_versions()
    assert set(found["versions"]) == {"python", "torch", "transformers", "datasets", "glintru"}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_numbers_that_json_lacks_leave_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_metrics_json(file, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics_json(file, {"a": float("nan")})
    with pytest.raises(TypeError, match="a set"):
        write_metrics_json(file, {"a": {1}})
    assert json.loads(file.read_text()) == {"a": 1}


def test_table_by_eye() -> None:
    rows = {
        "GLINT-RU": {"ndcg@10": {"value": 0.19481, "low": 0.187, "high": 0.203}},
        "popularity": {
            "ndcg@10": {"value": 0.018, "low": 0.0156, "high": 0.0206},
            "hr@10": {"value": 1.0, "low": 1, "high": 1},
        },
    }
    assert format_table(rows, ["ndcg@10", "hr@10"], title="test") == (
        "test\n"
        "model       NDCG@10                HR@10\n"
        "----------------------------------------------------------\n"
        "GLINT-RU    0.1948 [.1870, .2030]  -\n"
        "popularity  0.0180 [.0156, .0206]  1.0000 [1.0000, 1.0000]"
    )


def test_a_wide_table_continues_below_within_the_width() -> None:
    rows = {name: ranked(0).table() for name in ("GLINT-RU", "popularity", "item-kNN")}
    metrics = [f"{name}@{k}" for k in (10, 20) for name in ("ndcg", "hr", "mrr")]
    text = format_table(rows, metrics)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert [text.count(metric.upper()) for metric in metrics] == [1] * 6
    assert text.count("item-kNN") == 2
    narrow = format_table(rows, metrics, width=10)
    assert narrow.count("item-kNN") == 6
