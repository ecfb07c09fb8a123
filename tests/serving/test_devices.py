"""Which device computes what. The other device is torch's `meta`, which every machine has and which has no numbers."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.kernels.build import library
from modeling_glintru.models.auto import MODELS
from modeling_glintru.serving import Recommender, StreamingRecommender, recommender, streaming
from modeling_glintru.serving.recommender import ClickSession

from ..model.helpers import small_model

ITEMS = [f"item-{number:02d}" for number in range(30)]
META = torch.device("meta")


@pytest.fixture
def folder(tmp_path):
    small_model().save_pretrained(tmp_path)
    GlintRUProcessor(ITEMS).save_pretrained(tmp_path)
    return tmp_path


def test_a_recommender_takes_the_best_device_unless_it_is_told(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(recommender, "pick_device", lambda name: asked.append(name) or META)
    assert [Recommender.from_pretrained(folder, **o).model.device for o in ({}, {"device": "cuda:1"})] == [META] * 2
    assert asked == [None, "cuda:1"]


def test_a_device_that_is_not_there_is_known_before_the_folder_is_read(tmp_path):
    with pytest.raises(GlintRUError, match="there is no device 'cuda:99' to compute on"):
        Recommender.from_pretrained(tmp_path / "no such folder", device="cuda:99")


def test_inputs_go_where_the_model_is():
    """Nothing can be read from `meta`, so that the answer fails, after all that went into the model."""
    sasrec = MODELS["sasrec"]
    model, own = sasrec(sasrec.config_class(vocab_size=31, hidden_size=16)).eval().to(META), GlintRUProcessor(ITEMS)
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.extend(x.device for x in (*args, *kwargs.values()) if torch.is_tensor(x)),
        with_kwargs=True,
    )
    for ask in (
        lambda: Recommender(model, own).recommend([ITEMS[:3]], allowed=ITEMS[:9]),
        lambda: ClickSession(model, own, exclude=ITEMS[:9]).click(ITEMS[3]),
    ):
        with pytest.raises((NotImplementedError, RuntimeError), match=r"meta|Meta"):
            ask()
        assert len(seen) >= 2 and set(seen) == {META}
        seen.clear()


@pytest.mark.skipif(library() is None, reason="without a C compiler clicks go through the model itself")
def test_clicks_stay_on_the_cpu_and_whole_histories_go_to_the_device(folder, monkeypatch):
    monkeypatch.setattr(streaming, "pick_device", lambda name: torch.device(name))
    with StreamingRecommender.from_pretrained(folder) as expected:
        assert expected.model.device.type == "cpu"
        with StreamingRecommender.from_pretrained(folder, device="meta") as found:
            assert found.model.device == META and found.step.fingerprint == expected.step.fingerprint
            for one in (expected, found):
                one.observe_many([("ann", item) for item in ITEMS[:8]])
            assert found.recommend("ann") == expected.recommend("ann")
            with pytest.raises(NotImplementedError, match="meta"):  # so many go through the model in one pass
                found.observe_many([("ben", item) for item in ITEMS])
