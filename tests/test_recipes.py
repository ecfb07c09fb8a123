"""Recipes: names, overrides, checks, and the files that come with the package."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from modeling_glintru import GlintRUConfig
from modeling_glintru.errors import GlintRUError, RecipeError
from modeling_glintru.recipe import Recipe, TrainingRecipe, change_recipe, key_help, list_recipes, load_recipe
from modeling_glintru.recipe.keys import recipe_keys
from modeling_glintru.recipe.reading import PLAIN_NAMES

DATA = ["amazon-beauty", "amazon-video-games", "ml-100k", "ml-1m"]
NAMES = sorted([*DATA, *(f"{name}-best" for name in DATA), "demo"])
TIMED = ["amazon-beauty-best-time", "ml-100k-best-time"]
ALL = sorted([*NAMES, *TIMED])


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_recipes_of_the_package():
    assert list_recipes() == ALL


@pytest.mark.parametrize("name", NAMES)
def test_each_named_recipe_is_whole_and_makes_a_model(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")
    config = GlintRUConfig(vocab_size=11, **recipe.model)
    two = name.endswith("-best") and name != "ml-100k-best"
    assert config.num_hidden_layers == (2 if two else 1)  # the published model has one
    assert isinstance(recipe.training.learning_rate, float)


def test_the_settings_of_the_measured_ml_1m_run():
    recipe = load_recipe("ml-1m")
    assert (recipe.model["hidden_size"], recipe.model["num_attention_heads"]) == (128, 8)
    assert [recipe.model[f"{part}_dropout"] for part in ("embedding", "attention", "hidden")] == [0.3, 0.2, 0.3]
    training = recipe.training
    assert (training.learning_rate, training.warmup_steps, training.num_train_epochs) == (0.002, 400, 24)
    assert (training.train_batch_size, training.max_length, training.lr_scheduler_type) == (32, 200, "cosine")


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_reads_back_equal(name, tmp_path):
    recipe = load_recipe(name, ["learning_rate=1e-5", "model.layer_norm_eps=1e-12", "top_k=[1, 5]", "description=Zoë"])
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.learning_rate=0.002", "training", "learning_rate", 0.002),
        ("learning_rate=1e-3", "training", "learning_rate", 0.001),
        ("learning_rate=1E-3", "training", "learning_rate", 0.001),
        ("weight_decay=1", "training", "weight_decay", 1.0),
        ("early_stopping_patience=null", "training", "early_stopping_patience", None),
        ("random_window_shift=true", "training", "random_window_shift", True),
        ("source=/data/a=b.csv", "data", "source", "/data/a=b.csv"),
        ("data.user_column='1'", "data", "user_column", "1"),
        ("item_titles=", "data", "item_titles", None),
        ("where=[rating >= 4, x == 1]", "data", "where", ("rating >= 4", "x == 1")),
        ("data.columns=[a, b]", "data", "columns", ("a", "b")),
        ("in_file_order=true", "data", "in_file_order", True),
        ("hold_out=basket", "data", "hold_out", "basket"),
        ("evaluation.top_k=[5, 50]", "evaluation", "top_k", (5, 50)),
        ("protocols=[full, pop100]", "evaluation", "protocols", ("full", "pop100")),
    ],
)
def test_overrides(override, section, key, value):
    changed = getattr(getattr(load_recipe("demo", [override]), section), key)
    assert changed == value
    assert type(changed) is type(value)


def test_overrides_of_the_model_and_the_top_level():
    recipe = load_recipe("demo", ["hidden_size=48", "model.loss=bpr", "hidden_dropout=0", "seed=7", " name = mine "])
    assert (recipe.model["hidden_size"], recipe.loss["name"], recipe.model["hidden_dropout"]) == (48, "bpr", 0)
    assert (recipe.seed, recipe.name) == (7, "mine")


def test_the_last_override_wins_and_the_named_recipe_is_untouched():
    assert load_recipe("demo", ["seed=1", "seed=2"]).seed == 2
    assert load_recipe("demo").seed == 42


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lerning_rate=1", "'lerning_rate'; did you mean 'learning_rate'"),
        ("training.max_lenght=3", "did you mean 'training.max_length'"),
        ("modle.hidden_size=8", "did you mean 'model.hidden_size'"),
        ("vocab_size=5", "no recipe key 'vocab_size'"),
        ("return_dict=true", "no recipe key 'return_dict'"),
        ("learning_rate", "key=value"),
        ("learning_rate=fast", "training.learning_rate must be a number, but got 'fast'"),
        ("learning_rate=-1", "above 0"),
        ("learning_rate=.nan", "above 0"),
        ("learning_rate=[", "YAML"),
        ("seed=1.5", "seed must be an integer"),
        ("seed=true", "seed must be an integer"),
        ("seed=-1", "seed must be between"),
        ("max_length=0", "training.max_length must be at least 1"),
        ("train_batch_targets=8", "training.train_batch_targets must be at least 200"),
        ("early_stopping_patience=x", "an integer or null"),
        ("prefix_share=0", "training.prefix_share must be above 0"),
        ("prefix_share=2", "training.prefix_share must be above 0 and at most 1"),
        ("top_k=10", r"a list such as \[10, 20\]"),
        ("top_k=[]", "positive"),
        ("top_k=[ten]", "evaluation.top_k must be an integer"),
        ("protocols=[pop100]", "'full'"),
        ("protocols=[full, pop10]", "full, pop100, uni100"),
        ("reference_models=[sasrec]", "popularity, item_knn"),
        ("split=random", "leave_one_out, temporal, user, given"),
        ("duplicates=drop", "keep, exact, consecutive, first, last"),
        ("hold_out=session", "data.hold_out must be one of item, basket"),
        ("encoding=utf-9", "data.encoding must be an encoding such as utf-8, latin-1 or utf-16, but got 'utf-9'"),
        ("where=rating > 3", r"data.where must be a list such as \[one, two\], but got 'rating > 3'"),
        ("where=['']", "data.where must not be empty"),
        ("order_column=''", "data.order_column must not be empty"),
        ("columns=[a, b, a]", "data.columns names a column twice"),
        ("in_file_order=1", "data.in_file_order must be true or false"),
        ("test_fraction=0", "above 0"),
        ("test_fraction=0.9", "something to train on"),
        ("precision=fp16", "auto, fp32, bf16"),
        ("lr_scheduler_type=cosin", "cosine"),
        ("metric=auc", "ndcg@K"),
        ("hidden_size=wide", "model.hidden_size must be an integer"),
        ("hidden_size=true", "model.hidden_size must be an integer"),
        ("hidden_size=33", "model: hidden_size must be a multiple of num_attention_heads"),
        ("hidden_dropout=1.5", "model: hidden_dropout"),
        ("loss=mse", "loss.name must be one of cross_entropy, bpr"),
        ("name=", "needs a name|name must be text"),
    ],
)
def test_wrong_overrides_are_named_in_one_sentence(override, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_recipe("ml-1m", [override])
    assert isinstance(caught.value, GlintRUError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must be a YAML mapping"),
        ("- a\n- b", "must be a YAML mapping"),
        ("name: a\ntraining: fast", "training must be a mapping"),
        ("name: a\ntrainig: {}", "'trainig' in recipe; did you mean 'training'"),
        ("name: a\ndata: {splt: user}", "'splt' in data; did you mean 'split'"),
        ("name: a\nmodel: {hiden_size: 8}", "'hiden_size' in model; did you mean 'hidden_size'"),
        ("name: a\nmodel: {vocab_size: 8}", "'vocab_size' in model"),
        ("name: a\n1: 2", "no key 1 in recipe"),
        ("seed: 3", "needs a name"),
        ("name: 5", "name must be text"),
        ("name: [a\nseed: 3", "YAML error .*: line 2: "),
        ("name: a\ndata: !!python/object:os.system {}", "YAML error"),
        ("name: a\nseed: 0000-99-99", "seed|YAML error"),
    ],
)
def test_wrong_files_are_named_in_one_sentence(text, sentence, tmp_path):
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_short_recipe_takes_the_defaults(tmp_path):
    recipe = load_recipe(write(tmp_path, "name: short\ntraining:\nmodel: {hidden_size: 16}\n"), ["learning_rate=0.5"])
    assert recipe.training == TrainingRecipe(learning_rate=0.5)
    assert recipe.model == {"hidden_size": 16}


def test_an_override_of_a_section_that_is_no_mapping(tmp_path):
    with pytest.raises(RecipeError, match="training must be a mapping"):
        load_recipe(write(tmp_path, "name: a\ntraining: fast"), ["learning_rate=1"])


def test_recipes_of_before_keep_their_loss():
    """Settings of the loss stood in the section of the model; keys of the model that went are left out."""
    old = {"loss": "gbce", "num_negatives": 8, "hidden_size": 16, "padding_mode": "masked", "in_batch_share": 0.5}
    recipe = Recipe.from_dict({"name": "old", "model": old})
    assert recipe.model == {"hidden_size": 16} and recipe.loss == {"name": "gbce", "num_negatives": 8}
    for key in ("loss", "model.loss", "loss.name"):
        assert change_recipe(recipe, [f"{key}=bpr"]).loss["name"] == "bpr"
    assert change_recipe(recipe, ["model.num_negatives=3"]).loss["num_negatives"] == 3
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match=r"loss\.r_drop_alpha 1\.0 is for the loss cross_entropy"):
        change_recipe(recipe, ["r_drop_alpha=1"])


def test_another_model_keeps_what_all_models_share():
    recipe = load_recipe("demo", ["num_hidden_layers=3", "model.name=sasrec", "seed=7"])
    assert recipe.model == {"hidden_size": 32, "name": "sasrec", "num_hidden_layers": 3}
    config = recipe.config(vocab_size=11)
    assert (config.model_type, config.vocab_size, config.num_hidden_layers) == ("sasrec", 11, 3)
    assert config.embedding_dropout == 0.2  # SASRec's default, not the recipe's value for another model
    assert config.max_position_embeddings == recipe.training.max_length == 32
    again = load_recipe("demo", ["model.name=glintru"])
    assert again.model.items() > load_recipe("demo").model.items()  # the same model: nothing is dropped


def test_a_model_by_name_in_a_file(tmp_path):
    file = write(tmp_path, "name: a\nmodel: {name: gru4rec, embedding_dropout: 0.1}")
    recipe = load_recipe(file, ["hidden_size=16"])
    assert recipe.config(5).model_type == "gru4rec" and recipe.config(5).hidden_size == 16
    assert change_recipe(recipe, ["model.name=gru4rec"]) == recipe
    recipe.save(file)
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.name=sasrek"], "no model 'sasrek'; did you mean 'sasrec'"),
        (["model.name=[a]"], "no model"),
        (["model.name=item_knn"], "item_knn is not trained.*evaluation.reference_models"),
        (["model.name=gru4rec", "num_attention_heads=2"], "no recipe key 'num_attention_heads'"),
        (["model.name=sasrec", "use_gru=true"], "no recipe key 'use_gru'"),
        (["model.name=sasrec", "num_attention_heads=3"], "multiple of num_attention_heads"),
        (
            ["model.name=sasrec", "max_position_embeddings=9"],
            "max_position_embeddings is 9, but training.max_length 32",
        ),
    ],
)
def test_wrong_models_are_named_in_one_sentence(overrides, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_recipe("demo", overrides)
    assert "\n" not in str(caught.value)


def test_unknown_recipes(tmp_path):
    with pytest.raises(RecipeError, match="named 'ml1m'; did you mean 'ml-1m'"):
        load_recipe("ml1m")
    with pytest.raises(RecipeError, match=r"known: amazon-beauty, .*ml-1m"):
        load_recipe("zzz")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "binary.yaml")


def test_names_do_not_depend_on_the_folder_one_stands_in(tmp_path):
    root = str(Path(__file__).resolve().parents[1])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from modeling_glintru.recipe import list_recipes as l; print(l())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == str(ALL), done.stderr


@pytest.mark.parametrize("name", TIMED)
def test_with_the_time_of_the_request_only_r_drop_is_different(name):
    """And, on Beauty, the blocks, their dropout, smoothing and epochs: those with the time are as `best` was before."""
    timed, plain = load_recipe(name), load_recipe(name.removesuffix("-time"))
    training = replace(plain.training, early_stopping_patience=timed.training.early_stopping_patience)
    if name == "amazon-beauty-best-time":
        plain.model.update(hidden_size=128, attention_dropout=0.5, hidden_dropout=0.5)
        del plain.model["use_gru"]
        training = replace(training, num_train_epochs=20, cooccurrence_smoothing=0.0)
    assert plain.loss.pop("r_drop_alpha") == (2 if name == "amazon-beauty-best-time" else 1)
    assert timed.model == plain.model | {"use_time_gaps": True}
    assert timed.loss == plain.loss
    assert (timed.data, timed.training, timed.evaluation) == (plain.data, training, plain.evaluation)


@pytest.mark.parametrize(
    ("plain", "key", "value"),
    [
        ("lr", "learning_rate", 0.5),
        ("batch_size", "train_batch_size", 7),
        ("epochs", "num_train_epochs", 3),
        ("max_len", "max_length", 9),
        ("patience", "early_stopping_patience", 2),
    ],
)
def test_usual_names_of_a_key_find_it(plain, key, value, tmp_path):
    true = load_recipe("demo", [f"{key}={value}"])
    assert getattr(true.training, key) == value
    for name in (plain, f"training.{plain}"):
        assert load_recipe("demo", [f"{name}={value}"]) == true
    file = write(tmp_path, f"name: a\ntraining: {{{plain}: {value}}}")
    read = load_recipe(file)
    assert getattr(read.training, key) == value and plain not in read.to_dict()["training"]
    assert getattr(load_recipe(file, [f"{key}=1"]).training, key) == 1  # the override wins under either name


def test_usual_names_in_the_section_of_the_model(tmp_path):
    file = write(tmp_path, "name: a\nmodel: {name: gru4rec, hidden_dim: 16, dropout: 0.4}")
    assert load_recipe(file).model == {"name": "gru4rec", "hidden_size": 16, "embedding_dropout": 0.4}
    assert load_recipe(file, ["dropout=0.1", "num_layers=2"]).config(9).embedding_dropout == 0.1
    with pytest.raises(RecipeError, match=r"'dropout' may mean .*model.attention_dropout.*; write which"):
        load_recipe("demo", ["dropout=0.1"])
    with pytest.raises(RecipeError, match="training says learning_rate twice"):
        load_recipe(write(tmp_path, "name: a\ntraining: {learning_rate: 1.0, lr: 2.0}"))


def test_every_usual_name_is_of_a_key_and_is_none_itself():
    keys = recipe_keys()
    dotted, names = {key.dotted for key in keys}, {key.name for key in keys}
    assert {meant for meant in PLAIN_NAMES.values() if "*" not in meant} <= dotted
    assert not names & set(PLAIN_NAMES)


@pytest.mark.parametrize("model", ["glintru", "sasrec", "bsarec"])
def test_the_help_says_of_each_key_its_type_default_and_a_sentence(model):
    keys, text = recipe_keys(model), key_help(model)
    assert all(key.help.strip() for key in keys)
    assert {"training.learning_rate", "loss.name", "model.hidden_size", "data.where", "seed"} <= {
        k.dotted for k in keys
    }
    assert max(map(len, text.splitlines())) <= 80
    assert (
        "  learning_rate  (a number; default 0.001; also lr, max_learning_rate)\n      Peak learning rate of AdamW.\n"
        in text
    )
    assert [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        f"{section}:" for section in ("recipe", "data", "model", "loss", "training", "evaluation", "fine_tuning")
    ]
    assert text.count("\n  num_attention_heads  ") == 1 and ("\n  alpha  (a number" in text) == (model == "bsarec")


def test_the_padding_leak_is_refused_and_other_lost_settings_are_named(monkeypatch):
    with pytest.raises(RecipeError, match=r"padding_mode 'official'.*write masked"):
        Recipe.from_dict({"name": "old", "model": {"padding_mode": "official"}})
    said = []
    monkeypatch.setattr("modeling_glintru.recipe.schema.logger.warning_once", said.append)
    assert Recipe.from_dict({"name": "old", "model": {"in_batch_share": 0.3, "time_gap_masking": 0.1}}).model == {}
    assert said == ["The recipe sets what is not a setting any more; it runs without {'in_batch_share': 0.3}."]
