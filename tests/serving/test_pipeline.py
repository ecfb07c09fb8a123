"""`pipeline("sequential-recommendation")`, with the package and as remote code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, pipeline

from modeling_glintru import GlintRUError, GlintRUProcessor, GlintRUState, SequentialRecommendationPipeline
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.processing_glintru import UnknownItemError
from modeling_glintru.serving import Recommender

from ..model.helpers import small_model
from ..model.test_remote_code import BLOCK, clean_environment

TASK = "sequential-recommendation"
ITEMS = [f"item-{number}" for number in range(1, 21)]
HISTORIES = [ITEMS[2:5], [ITEMS[7]], ITEMS[4:15], []]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    small_model(vocab_size=21, num_hidden_layers=2).save_pretrained(folder)
    GlintRUProcessor(ITEMS, {"item-1": "One"}, max_length=6).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline(TASK, model=str(folder), device="cpu")


def close(one, other):
    """Two lists of items, the same up to rounding of the scores."""
    assert [item["item_id"] for item in one] == [item["item_id"] for item in other]
    scores = [[item["score"] for item in row] for row in (one, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_batch_gives_what_the_recommender_gives(pipe, folder):
    assert type(pipe) is SequentialRecommendationPipeline
    for exclude_seen in (True, False):
        expected = Recommender.from_pretrained(folder).recommend(HISTORIES, 4, exclude_seen=exclude_seen)
        for inputs in (HISTORIES, [{"history": history} for history in HISTORIES], (history for history in HISTORIES)):
            for batch_size in (1, 3, 128):
                inputs = list(inputs)
                found = list(pipe(inputs, top_k=4, exclude_seen=exclude_seen, batch_size=batch_size))
                assert len(found) == len(expected)
                for one, other in zip(found, expected, strict=True):
                    close(one["items"], other.items)
                    assert one["num_unknown_items"] == 0 and "state" not in one
    assert pipe([]) == []


def test_one_history_is_a_dict(pipe):
    found = pipe({"history": HISTORIES[0]}, top_k=3)
    close(found["items"], pipe(HISTORIES, top_k=3)[0]["items"])
    assert len(pipe({"history": []})["items"]) == 10
    everything = pipe({"history": [], "exclude": ITEMS[:18]}, top_k=20)["items"]
    assert {item["item_id"] for item in everything} == {"item-19", "item-20"}
    assert {"item_id", "title", "score"} == set(everything[0])


def test_a_generator_is_answered_batch_by_batch(pipe):
    taken = []

    def histories():
        for history in HISTORIES * 5:
            taken.append(history)
            yield history

    answers = pipe(histories(), batch_size=2)
    next(iter(answers))
    assert len(taken) <= 3


def test_options_of_the_pipeline_hold_for_its_calls(folder):
    pipe = pipeline(TASK, model=str(folder), top_k=2, unknown_items="error", batch_size=2)
    assert len(pipe({"history": ["item-1"]})["items"]) == 2
    assert len(pipe({"history": ["item-1"]}, top_k=3)["items"]) == 3
    with pytest.raises(UnknownItemError, match="nobody"):
        pipe([["item-1", "nobody"]])
    assert pipe([["nobody", "item-1"]], unknown_items="drop")[0]["num_unknown_items"] == 1


def test_it_goes_on_from_states_however_the_history_is_cut(pipe, folder):
    history = ITEMS[3:9]  # as long as the processor keeps
    whole = pipe({"history": history}, top_k=20, exclude_seen=False)["items"]
    first, new = pipe([history[:4], []], return_state=True)
    assert isinstance(first["state"], bytes)
    object_state = GlintRUState.from_bytes(first["state"])
    for state in (first["state"], object_state, bytearray(first["state"])):
        mixed = [{"history": history[4:], "state": state}, HISTORIES[1], {"history": history, "state": new["state"]}]
        found = pipe(mixed, top_k=20, exclude_seen=False, return_state=True)
        close(found[0]["items"], whole)
        close(found[1]["items"], pipe({"history": HISTORIES[1]}, top_k=20, exclude_seen=False)["items"])
        close(found[2]["items"], whole)
        assert [int(GlintRUState.from_bytes(one["state"]).count) for one in found] == [6, 1, 6]
    nothing_new = pipe({"history": [], "state": found[0]["state"]}, top_k=20, exclude_seen=False)
    close(nothing_new["items"], whole)
    half = object_state.to(torch.float16)
    assert len(pipe([{"history": [], "state": half}, HISTORIES[0]], return_state=True)) == 2


def test_without_a_state_the_newest_items_are_read(pipe):
    long = pipe({"history": HISTORIES[2]}, return_state=True)
    assert int(GlintRUState.from_bytes(long["state"]).count) == 6
    close(long["items"], pipe({"history": HISTORIES[2]})["items"])
    start = pipe({"history": []}, return_state=True)["state"]
    all_of_it = pipe({"history": HISTORIES[2], "state": start}, return_state=True)["state"]
    assert int(GlintRUState.from_bytes(all_of_it).count) == 11


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["item-1", "item-2"], {}, "one history is"),
        ("item-1", {}, "single text"),
        ([["item-1"], "item-2"], {}, "single text"),
        (7, {}, "come in a list"),
        ([["item-1"], [3]], {}, "all strings or all integers"),
        ([[3]], {}, "are strings"),
        ({"history": {"item-1": 1}}, {}, "history must be a list"),
        ({"histroy": ["item-1"]}, {}, "the unknown 'histroy'"),
        ({"exclude": ["item-1"]}, {}, "no 'history'"),
        ([[]], {"top_k": 0}, "top_k must be between 1 and the number of items (20), got 0"),
        ([[]], {"top_k": 21}, "top_k must be between"),
        ([[]], {"top_k": 2.5}, "top_k must be between"),
        ([[]], {"batch_size": 0}, "batch_size must be"),
        ([[]], {"unknown_items": "ignore"}, "unknown_items must be one of"),
        ({"history": [], "state": "text"}, {}, "must be bytes or a GlintRUState, got str"),
        ({"history": [], "state": b"GLRU"}, {}, "cut short"),
    ],
)
def test_bad_input_is_named(pipe, inputs, options, message):
    with pytest.raises(GlintRUError) as caught:
        pipe(inputs, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_states_that_do_not_fit_are_refused(pipe):
    other = small_model(vocab_size=21, num_hidden_layers=2).eval()
    torch.nn.init.ones_(other.model.embed_items.weight)
    (state,) = other.model.empty_state().to_bytes()
    with pytest.raises(GlintRUError, match="other weights"):
        pipe([{"history": [], "state": state}, ["item-1"]])
    (state,) = small_model(vocab_size=21, num_hidden_layers=1).eval().model.empty_state().to_bytes()
    with pytest.raises(GlintRUError, match="num_layers 1, not 2"):
        pipe({"history": [], "state": state})
    good = pipe({"history": ["item-1"]}, return_state=True)["state"]
    with pytest.raises(GlintRUError, match="cut short or altered"):
        pipe({"history": [], "state": good[:-1] + b"x"})
    with pytest.raises(GlintRUError, match="one user, got 2"):
        pipe({"history": [], "state": GlintRUState.from_bytes([good, good])})


def test_vocabulary_and_model_belong_together():
    model = small_model(vocab_size=21)
    with pytest.raises(GlintRUError, match="needs the model's vocabulary"):
        SequentialRecommendationPipeline(model)
    with pytest.raises(GlintRUError, match="3 items, but the model is for 20"):
        pipeline(TASK, model=model, feature_extractor=GlintRUProcessor(["a", "b", "c"]))


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_the_other_models(name, tmp_path):
    kind = MODELS[name]
    kind(kind.config_class(vocab_size=21, hidden_size=16)).save_pretrained(tmp_path / "plain")
    processor = GlintRUProcessor(ITEMS)
    processor.save_pretrained(tmp_path / "plain")
    pipe = pipeline(TASK, model=str(tmp_path / "plain"))
    expected = pipe(HISTORIES[:3])
    pipe.save_pretrained(tmp_path / "again")
    again = pipeline(TASK, model=str(tmp_path / "again"))
    for one, other in zip(again(HISTORIES[:3]), expected, strict=True):
        close(one["items"], other["items"])
    for call in (lambda: pipe(HISTORIES, return_state=True), lambda: pipe({"history": [], "state": b"GLRU"})):
        with pytest.raises(GlintRUError, match="states are for GLINT-RU"):
            call()


def test_a_saved_model_says_where_its_pipeline_is_and_needs_no_trust_here(pipe, folder, tmp_path):
    expected = {TASK: {"impl": "pipeline_glintru.SequentialRecommendationPipeline", "pt": ["AutoModel"]}}
    pipe.save_pretrained(tmp_path)
    for saved in (folder, tmp_path):
        assert json.loads((saved / "config.json").read_text())["custom_pipelines"] == expected
        assert (saved / "pipeline_glintru.py").exists()
        for trust in (None, True):
            assert type(pipeline(TASK, model=str(saved), trust_remote_code=trust)) is type(pipe)


REMOTE = (
    BLOCK
    + """
import json
from transformers import AutoModel, AutoProcessor, pipeline

folder, again, history = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
answers = []
for number in range(2):
    pipe = pipeline("sequential-recommendation", model=folder, trust_remote_code=True, device="cpu")
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    whole = pipe({"history": history}, exclude_seen=False)
    state = pipe({"history": history[:2]}, return_state=True)["state"]
    state = pipe.model.state_class.from_bytes(state)
    answers.append([whole["items"], pipe({"history": history[2:], "state": state}, exclude_seen=False)["items"]])
    if number:
        pipe.save_pretrained(again)
    else:
        folder = again + "-first"
        AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).save_pretrained(folder)
        AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True).save_pretrained(folder)
print(json.dumps(answers))
"""
)


@pytest.mark.slow
def test_it_works_without_the_package(pipe, folder, tmp_path):
    history = ITEMS[3:7]
    expected = pipe({"history": history}, exclude_seen=False)["items"]
    first = tmp_path / "first"
    shutil.copytree(folder, first)
    for source, again in ((first, tmp_path / "again"), (tmp_path / "again", tmp_path / "third")):
        command = [sys.executable, "-c", REMOTE, str(source), str(again), json.dumps(history)]
        environment = clean_environment(tmp_path / f"home of {again.name}")
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for answer in json.loads(done.stdout.splitlines()[-1]):
            for items in answer:
                close(items, expected)
        shutil.rmtree(source)
    assert type(AutoModel.from_pretrained(tmp_path / "third")).__name__ == "GlintRUForSequentialRecommendation"
