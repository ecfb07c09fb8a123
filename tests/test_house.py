"""`make house` counts right: on a tiny package whose numbers are known, and on what may travel with a model."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHOP = {
    "shop/__init__.py": "",
    "shop/__main__.py": "from .cli import main\n",
    "shop/errors.py": "class ShopError(ValueError):\n    pass\n",
    "shop/prices.py": "from shop.errors import ShopError\n\n\ndef price():\n    from .data.deep import table\n",
    "shop/data/__init__.py": "from .reading import read\n",
    "shop/data/reading.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .checks import check\n",
    "shop/data/checks.py": "from . import reading\n",
    "shop/data/deep/table.py": "from ...errors import ShopError\n",
    "shop/data/deep/fast.c": "int one(void) {\n  return 1;\n}\n",
    "shop/cli/__init__.py": "def main():\n    from .. import prices\n    import shop.data.reading as reading\n",
    "shop/comparison/__init__.py": "# one\n# two\n# three\n",
    "benchmarks/speed.py": "import helper\nimport numpy\nfrom shop.cli import main\n",
    "benchmarks/helper.py": "from importlib import import_module\nimport_module('shop.errors')\n",
    "tests/test_shop.py": "import benchmarks.speed\n",
    "research/notes.md": "No Python here.\n",
}


@pytest.fixture
def tool(monkeypatch):
    """The import of a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_graph_of_a_tiny_package(tool, tmp_path):
    graph = tool("import_graph").import_graph(written(tmp_path, SHOP), "shop")
    files = ["shop/__init__.py", "shop/__main__.py", "shop/errors.py", "shop/prices.py"]
    assert graph.nodes == sorted(["benchmarks/", "shop/cli/", "shop/comparison/", "shop/data/", *files])
    arrows = {name: targets for name, targets in graph.between_nodes.items() if targets}
    assert arrows == {
        "benchmarks/": {"shop/cli/"},
        "shop/__main__.py": {"shop/cli/"},
        "shop/cli/": {"shop/prices.py", "shop/data/"},
        "shop/prices.py": {"shop/errors.py", "shop/data/"},
        "shop/data/": {"shop/errors.py"},
    }
    assert graph.longest_chain() == ["benchmarks/", "shop/cli/", "shop/prices.py", "shop/data/", "shop/errors.py"]
    assert graph.circles() == []
    assert graph.file_circles() == [["shop/data/checks.py", "shop/data/reading.py"]]
    assert graph.hidden == ["benchmarks/helper.py:2"]


def test_a_circle_is_named_with_the_imports_that_close_it(tool, tmp_path):
    circle = {"shop/errors.py": "import shop.prices\n", "shop/lonely.py": "from . import errors\n"}
    graph = tool("import_graph").import_graph(written(tmp_path, SHOP | circle), "shop")
    members = ["shop/data/", "shop/errors.py", "shop/prices.py"]
    assert graph.circles() == [members]
    assert graph.longest_chain() == ["benchmarks/", "shop/cli/", *members]
    assert [str(tie) for tie in graph.ties(members)] == [
        "shop/data/deep/table.py:1 imports shop/errors.py",
        "shop/errors.py:1 imports shop/prices.py",
        "shop/prices.py:1 imports shop/errors.py",
        "shop/prices.py:5 imports shop/data/deep/table.py",
    ]


def test_the_structure_of_a_tiny_package(tool, tmp_path):
    house = tool("house")
    part = house.structure(written(tmp_path, SHOP), "shop")
    # Every file but the three lines of comparison/: Python and C.
    counted = [text for name, text in SHOP.items() if name.startswith("shop/") and "comparison" not in name]
    assert [row.value for row in part.rows] == [4, 8, 5, 0, 1, sum(text.count("\n") for text in counted)]
    assert "The longest chain: benchmarks/ > shop/cli/ > shop/prices.py > shop/data/ > shop/errors.py" in part.details
    assert "  shop/data/checks.py:1 imports shop/data/reading.py" in part.details


def test_the_readme_is_counted_as_wc_does(tool, tmp_path):
    (tmp_path / "README.md").write_text("# A shop\n\nIt sells, and\nsells on.\n")
    assert [row.value for row in tool("house").readme(tmp_path).rows] == [4, 8]


def test_what_remote_code_should_not_hold_is_found(tool):
    forbidden = tool("house").forbidden_parts
    assert forbidden("import torch, re\nPATTERN = re.compile('a; b')\nx = torch.compiler.is_compiling()\n") == []
    source = (
        'import ctypes.util\nfrom subprocess import run\nSOURCE = """\nint f(void)\n{\n' + "  x;\n" * 4 + '}\n"""\n'
    )
    assert forbidden(source) == ["ctypes.util (line 1)", "subprocess (line 2)", "8 lines of C (line 3)"]
    assert forbidden("import torch\nf = torch.compile(f)\nexec('1')\nINCLUDE = '#include <math.h>'\n") == [
        "torch.compile() (line 2)",
        "exec() (line 3)",
        "1 lines of C (line 4)",
    ]


def test_code_beside_the_weights_is_counted(tool, tmp_path):
    files = {"modeling.py": "a\nb\n", "fast.c": "int x;\n", "config.json": "{\n}\n", "README.md": "Hello\n"}
    assert tool("house").code_in(written(tmp_path, files)) == {"fast.c": 1, "modeling.py": 2}


def test_fields_of_parents_in_between_count(tool):
    base = dataclasses.make_dataclass("Base", [("dtype", str, "float32")])
    between = dataclasses.make_dataclass("Between", [("size", int, 1)], bases=(base,))
    config = dataclasses.make_dataclass("Config", [("heads", int, 1), ("dtype", str, "bfloat16")], bases=(between,))
    assert tool("house").own_fields(config, base) == ["size", "heads"]


def test_private_names_of_the_libraries_are_found(tool, tmp_path):
    source = """
from transformers import Trainer
from transformers.models.auto.auto_factory import _LazyAutoMapping
from ._threads import _ours

class Middle(Trainer):
    def _get_train_sampler(self, dataset=None):
        return super()._get_train_sampler(dataset)

    def _own_helper(self):
        return self._another_of_ours

class Ours(Middle):
    def push(self):
        self.save_model(_internal_call=True)

class Apart:
    def _get_train_sampler(self):
        return self._tr_loss

def reach(trainer):
    setattr(trainer, "_globalstep_last_logged", 0)
    return trainer._train_batch_size
"""
    found = tool("private_names").private_names(written(tmp_path, {"training/trainer.py": source}))
    assert found == {
        "_LazyAutoMapping": ["training/trainer.py:3"],
        "_get_train_sampler": ["training/trainer.py:7", "training/trainer.py:8"],
        "_globalstep_last_logged": ["training/trainer.py:22"],
        "_internal_call": ["training/trainer.py:15"],
        "_train_batch_size": ["training/trainer.py:23"],
    }


def test_flat_memory_is_told_from_growing(tool):
    house = tool("house")

    def rows(held: dict[str, float]):
        memory = {where: {"rss": int(value * 1e9), "peak": int(value * 1e9)} for where, value in held.items()}
        return house.memory_rows({"memory": memory, "steps": 2400}).rows

    growing = rows({"50": 1.0, "300": 2.6, "end": 4.8, "exit": 4.8})
    assert [round(row.value, 2) for row in growing] == [4.8, 4.8] and not any(row.reached for row in growing)
    flat = rows({"50": 1.0, "300": 1.05, "end": 1.0, "exit": 1.2})
    assert [round(row.value, 2) for row in flat] == [1.2, 1.05] and all(row.reached for row in flat)


def test_check_fails_only_where_a_goal_is_missed(tool, monkeypatch, capsys, tmp_path):
    house = tool("house")
    for name in ("travelling", "configuration", "leaning", "command", "readme"):
        monkeypatch.setattr(house, name, lambda: house.Part([], []))
    monkeypatch.setattr(house, "structure", lambda: house.Part([house.Row("doors", 3, 2)], ["A door too many."]))
    assert house.main([]) == 0
    assert house.main(["--check", "--json", str(tmp_path / "house.json")]) == 1
    out = capsys.readouterr().out
    assert "doors" in out and "≤ 2  no" in out and "A door too many." in out
    assert json.loads((tmp_path / "house.json").read_text()) == [
        {"name": "doors", "value": 3, "goal": 2, "form": ",.0f", "reached": False}
    ]
    monkeypatch.setattr(house, "structure", lambda: house.Part([house.Row("doors", 2, 2)], []))
    assert house.main(["--check"]) == 0


@pytest.mark.slow
def test_a_training_writes_down_its_memory(tool, tmp_path):
    tool("child_processes").write_interactions(tmp_path / "table.csv", rows=300, users=30, items=20)
    script = str(ROOT / "benchmarks" / "train_memory.py")
    options = ["--report", str(tmp_path / "memory.json"), "--steps", "2", "4", "--stop", "4", "--"]
    training = ["--data", str(tmp_path / "table.csv"), "--output_dir", str(tmp_path / "model"), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, *options, *training], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "memory.json").read_text())
    assert list(report["memory"]) == ["2", "4", "end", "exit"] and report["steps"] == 4
    peaks = [entry["peak"] for entry in report["memory"].values()]
    assert peaks == sorted(peaks) and peaks[0] > 10_000_000
    assert len(report["step_seconds"]) == 3 and (tmp_path / "model" / "model.safetensors").is_file()
