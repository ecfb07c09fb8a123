"""The worked example of docs/adding_a_model.md: a file of a user is trained, saved with its code, loaded and pushed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from modeling_glintru import AutoModelForSequentialRecommendation, Recommender, StreamingRecommender
from modeling_glintru.cli import app
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.errors import GlintRUError, ModelFolderError
from modeling_glintru.models import auto
from modeling_glintru.models.auto import ModelFileError, register_model_file, registered_name

from .hub_server import ANN
from .model.test_remote_code import BLOCK

TEXT = (Path(__file__).parent.parent / "docs" / "adding_a_model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
CODE = next(text for kind, text in BLOCKS if kind == "python")
COMMANDS = next(text for kind, text in BLOCKS if kind == "bash").strip().splitlines()
NAME = "MeanRecForSequentialRecommendation"
WITHOUT_THE_PACKAGE = (
    BLOCK
    + """
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
print(type(model).__name__, *model(**processor([["saga-03-volume-1"]])).logits[0, 1:4].tolist())
"""
)


@pytest.fixture(scope="module")
def meanrec(tmp_path_factory):
    """The file of the example."""
    file = tmp_path_factory.mktemp("mine") / "meanrec.py"
    file.write_text(CODE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def model(meanrec):
    yield register_model_file(meanrec, NAME)
    forget()


def forget():
    """As a new process, which knows nothing of the file."""
    kind = auto.MODELS.pop("meanrec", None)
    if kind is not None:
        for mapping in (auto.AutoConfig, auto.AutoModel):
            registry = getattr(mapping, "_model_mapping", None)
            if registry is not None:
                registry._extra_content.pop(kind.config_class, None)
        auto.AutoModelForSequentialRecommendation._model_mapping._extra_content.pop(kind.config_class, None)


@pytest.fixture(scope="module")
def folder(meanrec, tmp_path_factory):
    """The model folder that the first command of the page writes."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(meanrec.parent)
        words = [*shlex.split(COMMANDS[0])[1:], "--quiet", "--set", "num_train_epochs=2"]
        result = CliRunner().invoke(app, [str(folder / "meanrec") if w == "outputs/meanrec" else w for w in words])
    assert result.exit_code == 0, result.output
    forget()
    return folder / "meanrec"


def test_the_other_commands(folder):
    for line in COMMANDS[1:]:
        forget()
        words = [str(folder) if word == "outputs/meanrec" else word for word in shlex.split(line)[1:]]
        without = CliRunner().invoke(app, [word for word in words if word != "--trust_remote_code"])
        assert without.exit_code == 2 and "--trust_remote_code" in without.output
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    model = AutoModelForSequentialRecommendation.from_pretrained(folder)
    assert type(model).__name__ == NAME and model.config.hidden_size == 32
    assert type(model) is auto.MODELS["meanrec"]


def test_consent(folder):
    forget()
    with pytest.raises(ModelFolderError, match="trust_remote_code=True"):
        Recommender.from_pretrained(folder)
    recommender = Recommender.from_pretrained(folder, trust_remote_code=True)
    (found,) = recommender.recommend([["saga-03-volume-1"]], top_k=3)
    assert len(found.items) == 3
    # From now on the class is known.
    assert Recommender.from_pretrained(folder).recommend([["saga-03-volume-1"]], top_k=3) == [found]
    with pytest.raises(GlintRUError, match="keeps no state"):
        StreamingRecommender.from_pretrained(folder, trust_remote_code=True)


def test_the_folder_loads_without_the_package(folder):
    recommender = Recommender.from_pretrained(folder, trust_remote_code=True)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(folder)], capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    name, *scores = done.stdout.split()
    with torch.inference_mode():
        logits = recommender.model(**recommender.processor([["saga-03-volume-1"]])).logits[0, 1:4]
    assert name == NAME and [float(score) for score in scores] == pytest.approx(logits.tolist(), abs=1e-5)
    warnings = [line for line in done.stderr.splitlines() if line.strip() and "Loading weights" not in line]
    assert warnings == []


def test_a_saved_and_a_pushed_folder_keep_the_code(folder, hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", ANN)
    recommender = Recommender.from_pretrained(folder, trust_remote_code=True)
    recommender.save_pretrained(tmp_path / "again")
    assert {file.name for file in (tmp_path / "again").iterdir()} == {file.name for file in folder.iterdir()}
    assert (tmp_path / "again" / "modeling_meanrec.py").read_text() == (folder / "modeling_meanrec.py").read_text()
    forget()
    result = CliRunner().invoke(app, ["push", str(folder), "ann/meanrec", "--trust_remote_code"])
    assert result.exit_code == 0, result.output
    forget()
    pulled = Recommender.from_pretrained("ann/meanrec", trust_remote_code=True)
    history = [["saga-03-volume-1"]]
    assert pulled.recommend(history) == recommender.recommend(history)


def test_training_from_python_and_fine_tuning(meanrec, folder, tmp_path):
    from modeling_glintru import train

    options = {"settings": {"num_train_epochs": 1, "hidden_size": 8}, "verbose": False}
    result = train(recipe="demo", model=f"{meanrec}:{NAME}", output_dir=tmp_path / "model", **options)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "The model is MeanRec, width 8; its code is in `modeling_meanrec.py`." in card
    assert type(result.model).__name__ == NAME and "name: meanrec" in (tmp_path / "model/recipe.yaml").read_text()
    tuned = train("demo", from_model=str(folder), settings={"num_train_epochs": 1}, verbose=False)
    assert set(tuned.evaluations) > {"MeanRec", "before"} and (tuned.output_dir / "modeling_meanrec.py").is_file()


@pytest.mark.slow
def test_it_is_compared(meanrec, tmp_path):
    """In processes of their own, which have to load the file themselves."""
    synthetic_interactions(60, 40).frame.write_csv(tmp_path / "clicks.csv")
    words = ["compare", "--data", tmp_path / "clicks.csv", "--models", f"gru4rec,{meanrec}:{NAME}", "--seeds", "1"]
    words += ["--output_dir", tmp_path / "out", "--set", "num_train_epochs=1", "--set", "hidden_size=8"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    forget()
    assert result.exit_code == 0, result.output
    models = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))["models"]
    assert models["meanrec"]["test"]["ndcg@10"] > 0 and models["meanrec"]["difference"]["is"] in result.output


def test_the_file_is_run_once_and_anew_when_it_changes(meanrec, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(CODE.replace('"meanrec"', '"minerec"'), encoding="utf-8")
    assert registered_name(f"{mine}:{NAME}") == "minerec"
    first = auto.MODELS.pop("minerec")
    assert register_model_file(mine, NAME) is first
    mine.write_text(mine.read_text() + "\n# changed\n", encoding="utf-8")
    assert register_model_file(mine, NAME) is not first
    del auto.MODELS["minerec"]
    assert registered_name("sasrec") == "sasrec"


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("nowhere.py", None, NAME, "there is no file"),
        ("mine.py", CODE, "Other", "defines no class 'Other'"),
        ("mine.py", CODE, "MeanRecModel", "is no recommender"),
        ("mine.py", CODE, "MeanRecConfig", "is no recommender"),
        ("mine.py", CODE, "torch", "is no recommender"),
        ("mine.py", CODE.replace('model_type = "meanrec"', "pass"), NAME, "needs a config_class"),
        ("mine.py", CODE.replace('"meanrec"', '"sasrec"'), NAME, "model_type 'sasrec' .* is that of another model"),
        ("mine.py", "import no_such_package", NAME, "cannot be run: ModuleNotFoundError"),
        ("mine.py", "def broken(:", NAME, "cannot be run: SyntaxError"),
        ("sasrec.py", CODE, NAME, "needs another name"),
        ("my-model.py", CODE, NAME, "needs another name"),
    ],
)
def test_bad_files(tmp_path, name, text, kind, message):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelFileError, match=message):
        register_model_file(tmp_path / name, kind)


def test_bad_names_on_the_command_line(tmp_path):
    words = ["train", "--recipe", "demo", "--output_dir", str(tmp_path / "model"), "--model"]
    result = CliRunner().invoke(app, [*words, "mine.py"])
    assert result.exit_code == 2 and "mine.py:MyModel" in result.output
    result = CliRunner().invoke(app, [*words, "nowhere.py:MyModel"])
    assert result.exit_code == 2 and "there is no file nowhere.py" in result.output


def test_the_model_is_causal_and_reads_no_padding(model):
    model = model(model.config_class(vocab_size=11, hidden_size=8)).eval()
    ids = torch.tensor([[0, 0, 3, 5, 7], [3, 5, 9, 0, 0]])
    states = model(ids).last_hidden_state
    torch.testing.assert_close(states[0, 2:4], states[1, :2])
    torch.testing.assert_close(model(ids[:1, 2:]).logits, model(ids[:1]).logits)


def test_bad_values_are_refused(model):
    with pytest.raises(Exception, match="hidden_dropout must be at least 0 and below 1"):
        model.config_class(hidden_dropout=2.0)
