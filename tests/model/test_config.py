"""The configuration: validated, documented, and round-tripped."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from modeling_glintru import GlintRUConfig, GlintRUError

from .helpers import small_config

OWN_FIELDS = {f.name for f in dataclasses.fields(GlintRUConfig)} - {
    f.name for f in dataclasses.fields(PreTrainedConfig)
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, "vocab_size must be at least 2"),
        ({"hidden_size": 0}, "hidden_size must be at least"),
        ({"hidden_size": 1, "num_attention_heads": 1}, "hidden_size must be at least 2"),
        ({"hidden_size": 30}, "hidden_size must be a multiple of num_attention_heads, got 30 and 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        ({"pad_token_id": 1}, "pad_token_id must be 0"),
        ({"hidden_dropout": 1.0}, "hidden_dropout must be at least 0 and below 1"),
        ({"embedding_dropout": -0.1}, "embedding_dropout must be at least 0"),
        ({"embedding_dropout": float("nan")}, "embedding_dropout must be at least 0"),
        ({"attention_dropout": "0.1"}, "attention_dropout"),
        ({"average_share": 1}, "average_share must be at least 0 and below 1"),
        ({"state_space_share": -0.1}, "state_space_share must be at least 0 and below 1"),
        ({"average_share": 0.5, "state_space_share": 0.5}, "must leave something to the experts"),
        ({"average_decay": 1.0}, "average_decay must be at least 0 and below 1"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be above 0"),
        ({"use_gru": False, "use_linear_attention": False}, "cannot both be off"),
        ({"use_gru": 1}, "use_gru"),
    ],
)
def test_wrong_values_fail_at_construction(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        small_config(**options)


def test_round_trip(tmp_path):
    config = small_config(num_hidden_layers=2, use_block_gate=False, hidden_dropout=0)
    config.save_pretrained(tmp_path)
    for loaded in (GlintRUConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is GlintRUConfig
        assert {name: getattr(loaded, name) for name in OWN_FIELDS} == {
            name: getattr(config, name) for name in OWN_FIELDS
        }


def test_the_defaults_are_those_of_the_authors():
    config = GlintRUConfig()
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (128, 8, 1)
    assert (config.embedding_dropout, config.attention_dropout, config.hidden_dropout) == (0.2, 0.2, 0.3)
    assert config.layer_norm_eps == 1e-12


def test_every_field_is_documented():
    for name in OWN_FIELDS - {"keys_to_ignore_at_inference"}:
        assert f"{name} (`" in GlintRUConfig.__doc__, name


def test_unknown_keys_are_named_in_a_warning(caplog):
    logger = logging.getLogger("modeling_glintru.models.configuration_glintru")
    logger.addHandler(caplog.handler)
    try:
        config = small_config(hiden_size=3)
        assert "'hiden_size'" in caplog.text
        caplog.clear()
        GlintRUConfig.from_dict(small_config().to_dict())
        assert caplog.text == ""
    finally:
        logger.removeHandler(caplog.handler)
    assert config.hiden_size == 3


def test_configs_of_before_load(caplog):
    """How a model was trained is not in its config any more, and the authors' padding leak is refused."""
    old = {"padding_mode": "masked", "padding_in_softmax": True, "loss": "cross_entropy", "r_drop_alpha": 0.0}
    assert GlintRUConfig(**old, vocab_size=9).vocab_size == 9
    assert caplog.text == ""
    config = GlintRUConfig(loss="gbce", num_negatives=8)
    assert "{'loss': 'gbce', 'num_negatives': 8}" in caplog.text and "model.training_loss" in caplog.text
    assert not {"loss", "num_negatives", "padding_mode"} & config.to_dict().keys()
    with pytest.raises(GlintRUError, match=r"set padding_mode to 'masked' in config\.json"):
        GlintRUConfig(padding_mode="official")
