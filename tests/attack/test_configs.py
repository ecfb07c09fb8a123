"""A config.json of a stranger, or a recipe with absurd sizes: one sentence, soon."""

from __future__ import annotations

import itertools
import json
import os
import random

import pytest

from modeling_glintru.errors import GlintRUError, ModelFolderError, RecipeError
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_recipe

TRIES = int(os.environ.get("GLINTRU_ATTACK_TRIES", "150"))
VALUES = [
    *(None, "x", "", "../x", -1, 0, 2**63, 10**9, 10**4000, 1.5, float("nan"), True, "float16"),
    *([], [1], [[1, 2]], {}, {"a": 1}, {"quant_method": "bnb"}, {"": {}}),
]
OTHER_KEYS = [
    *("torch_dtype", "quantization_config", "id2label", "label2id", "num_labels", "problem_type", "return_dict"),
    *("output_attentions", "tie_word_embeddings", "attn_implementation", "_attn_implementation", "is_encoder_decoder"),
    *(
        "task_specific_params",
        "generation_config",
        "tokenizer_class",
        "bos_token_id",
        "transformers_weights",
        "auto_map",
    ),
    *("base_model_tp_plan", "sub_configs", "_name_or_path", "_commit_hash", "experts_implementation"),
]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_values_of_wrong_types_and_sizes(folder, name):
    sound = json.loads((folder / name).read_text())
    cases = list(itertools.product([*sound, *OTHER_KEYS], VALUES))
    refused = 0
    for key, value in random.Random(0).sample(cases, min(TRIES, len(cases))):
        (folder / name).write_text(json.dumps({**sound, key: value}))
        try:
            load_model_folder(folder)
        except GlintRUError as error:
            assert len(str(error)) < 600, (key, value)
            refused += 1
    assert refused > min(TRIES, len(cases)) / 4


@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "hidden_size", "vocab_size", "num_labels", "num_attention_heads"]
)
@pytest.mark.parametrize("value", [10**9, 2**63, 10**40])
def test_absurd_sizes_are_refused_before_anything_is_built(folder, name, value):
    sound = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**sound, name: value}))
    with pytest.raises(ModelFolderError, match=r"must be at most|bytes cannot hold"):
        load_model_folder(folder)
    if name not in ("vocab_size", "num_labels"):
        with pytest.raises(RecipeError, match=f"model: {name} must be at most"):
            load_recipe("demo", [f"{name}={value}"])


def test_an_auto_map_that_is_none(folder):
    sound = json.loads((folder / "config.json").read_text())
    for value in (3, "x", [1], None):
        (folder / "config.json").write_text(json.dumps({**sound, "model_type": "other", "auto_map": value}))
        with pytest.raises(ModelFolderError, match="holds a model of type 'other'"):
            load_model_folder(folder)
