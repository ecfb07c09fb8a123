"""YAML and JSON of a stranger: refused within moments, with one sentence."""

from __future__ import annotations

import pytest

from modeling_glintru.errors import GlintRUError, RecipeError
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.models.untrusted_text import parse_json, parse_yaml
from modeling_glintru.recipe import load_recipe

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
HOSTILE = {
    "aliases": (LAUGHS, "unfold to more than 100,000 values"),
    "merged aliases": (MERGES, "unfold to more than 100,000 values"),
    "an alias in itself": ("a: &a [*a]", "an alias stands for something that holds the alias itself"),
    "deep lists": ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 levels deep"),
    "60 levels": ("a: " + "[" * 60 + "]" * 60, "nested more than 50 levels deep"),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(900)), "nested more than 50 levels deep"),
    "a long number": ("a: " + "9" * 10_000, "Exceeds the limit"),
    "a large file": ("a: " + "x" * 1_000_001, "1,000,004 characters, more than 1,000,000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml(tmp_path, name):
    text, message = HOSTILE[name]
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert len(str(caught.value)) < 400


def test_ordinary_yaml():
    text = "base: &base {x: 1e-3, y: [1, two]}\nnext:\n  <<: *base\n  y: null\n"
    assert parse_yaml(text) == {"base": {"x": 0.001, "y": [1, "two"]}, "next": {"x": 0.001, "y": None}}
    assert parse_yaml("") is None


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_recipe_of_a_model(glintru, demo, tmp_path, name):
    """`evaluate` reads `recipe.yaml` of a folder that came from anywhere."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in demo[0].iterdir():
        if file.is_file() and file.name != "manifest.json":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "recipe.yaml").write_text(HOSTILE[name][0])
    result = glintru("evaluate", folder)
    assert result.exit_code == 2 and HOSTILE[name][1] in " ".join(result.output.split())


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
@pytest.mark.parametrize("depth", [60, 100_000])
def test_deep_json(folder, opening, closing, depth):
    text = opening * depth + "1" + closing * depth
    with pytest.raises(ValueError, match="nested more than 50 levels deep"):
        parse_json(text)
    for name in ("config.json", "preprocessor_config.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_text(text)
        with pytest.raises(GlintRUError, match=f"{name}.*nested"):
            load_model_folder(folder)
        (folder / name).write_bytes(before)
