"""What `glintru` says of itself, at once."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from modeling_glintru.cli import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_says_of_each_verb_what_its_own_help_says(verb):
    function = getattr(importlib.import_module(f"modeling_glintru.cli.{verb}"), verb)
    assert VERBS[verb] == " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_needs_no_model_imports_none(option):
    command = [sys.executable, "-m", "modeling_glintru", option]
    listing = [sys.executable, "-X", "importtime", *command[1:]]
    done = subprocess.run(listing, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "transformers", "polars", "datasets"} & imported
    assert "modeling_glintru.cli" in imported
    for verb in VERBS if option == "--help" else ():
        assert f"  {verb}" in done.stdout


@pytest.mark.parametrize("program", ["import modeling_glintru", "import modeling_glintru.serving"])
def test_an_import_makes_the_auto_classes_know_the_models(program):
    code = f"{program}\nfrom transformers import AutoConfig\nprint(AutoConfig.for_model('glintru').hidden_size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "128", done.stderr


def test_every_name_of_the_front_door_is_there():
    import modeling_glintru

    for name in modeling_glintru.__all__:
        assert getattr(modeling_glintru, name) is not None
    assert set(modeling_glintru.__all__) <= set(dir(modeling_glintru))
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        modeling_glintru.Recomender  # noqa: B018
