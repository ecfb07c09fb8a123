"""A model from the Hub, fine-tuned on the next slice."""

from __future__ import annotations

import json

from modeling_glintru.hub import push_folder

from ..cli.test_fine_tune import QUIET, later  # noqa: F401 (a fixture: a later month of the demo shop)


def test_a_pulled_model_gets_better_on_the_next_slice(hub, demo, later, glintru, tmp_path):  # noqa: F811
    push_folder(demo[0], "ann/demo")
    out = tmp_path / "tuned"
    result = glintru("train", "--from", "ann/demo", "--data", later, "--output_dir", out, *QUIET)
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["before"]["test"]["ndcg@10"]["value"] < metrics["test"]["ndcg@10"]["value"]
    push_folder(out, "ann/demo")
    assert "ann/demo" in (out / "recipe.yaml").read_text()
