"""Measures how the repository is built, and prints it beside what it is to reach: `make house`.

    python benchmarks/house.py                       # about a minute
    python benchmarks/house.py --memory              # also the memory of a long training, which takes many minutes
    python benchmarks/house.py --check               # ends with code 1 where a goal is not reached

It counts modules, imports and lines in the source, saves a tiny model and reads the code that travels with it, and runs
the command. It stands beside the benchmarks since it measures, like them, and shares their way to run a process; the
speed of two commits is compared by `compare_commits.py`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from child_processes import ROOT, median_cpu, run_python, train_with_memory, write_interactions
from import_graph import Graph, import_graph
from private_names import private_names

PACKAGE = "modeling_glintru"
SOURCE = frozenset({".py", ".c", ".h"})
NOT_COUNTED = "comparison"  # the room that is counted apart
FORBIDDEN_IMPORTS = frozenset({"subprocess", "ctypes", "cffi"})
FORBIDDEN_CALLS = frozenset({"compile", "exec", "eval", "torch.compile", "os.system", "os.popen"})
C_LINES = 5  # from so many lines on that end as those of C do, a text is taken for C
ROWS, USERS, ITEMS, STEPS = 300_000, 30_000, 20_000, (50, 300)
FLAT = 1.1  # memory that grows by less is flat


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: What is measured.
        value: The number; at most `goal` is reached.
        goal: The number to reach.
        form: How both are printed.
    """

    name: str
    value: float
    goal: float
    form: str = ",.0f"

    @property
    def reached(self) -> bool:
        return self.value <= self.goal

    def __str__(self) -> str:
        value, goal = format(self.value, self.form), "≤ " + format(self.goal, self.form)
        return f"{self.name:50}{value:>10}{goal:>11}  {'yes' if self.reached else 'no'}"


@dataclass(frozen=True)
class Part:
    """Some rows of the table, and lines that say more about them."""

    rows: list[Row]
    details: list[str]


# ---------------------------------------------------------------------- the source


def top_modules(root: Path, package: str) -> list[str]:
    """The files of Python at the top of a package, `__init__.py` and its like included; folders are not counted."""
    return sorted(file.name for file in (root / package).glob("*.py"))


def source_files(folder: Path, without: str | None = None) -> list[Path]:
    """All source files (Python and C) in a folder, apart from those in one folder inside it."""
    return [
        file for file in folder.rglob("*") if file.suffix in SOURCE and file.relative_to(folder).parts[0] != without
    ]


def line_count(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def docstring_lines(file: Path) -> int:
    """Lines of a Python file that belong to docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, documented)]
    return sum(
        (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        for node in nodes
        if ast.get_docstring(node, clean=False) is not None
    )


def structure(root: Path = ROOT, package: str = PACKAGE) -> Part:
    """Modules, the graph of imports, lines."""
    graph = import_graph(root, package)
    files = source_files(root / package, NOT_COUNTED)
    docstrings = sum(docstring_lines(file) for file in files if file.suffix == ".py")
    empty = sum(not line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines())
    chain, circles, inside = graph.longest_chain(), graph.circles(), graph.file_circles()
    rows = [
        Row("files at the top of the package", len(top_modules(root, package)), 8),
        Row("nodes of the import graph", len(graph.nodes), 22),
        Row("longest chain of imports, in nodes", len(chain), 9),
        Row("circles between nodes", len(circles), 0),
        Row("circles between the files of one folder", len(inside), 0),
        Row(f"lines of the package without {NOT_COUNTED}/", sum(map(line_count, files)), 15_000),
    ]
    details = [
        "Files at the top: every .py there, __init__, __main__ and _version included; folders are not counted.",
        "Nodes: files and folders at the top of the package, and the other folders of the repository with Python in "
        "them but tests, docs and examples.",
        "Imports inside functions and for type checkers count; those by a name in a string are not seen: "
        + (", ".join(graph.hidden) or "there are none."),
        "Lines: of .py, .c and .h files, blank lines and comments included: "
        f"{docstrings:,} of them are docstrings, {empty:,} are empty.",
        f"The longest chain: {' > '.join(chain)}",
    ]
    return Part(rows, details + [line for circle in [*circles, *inside] for line in told(circle, graph)])


def told(circle: Sequence[str], graph: Graph) -> list[str]:
    """A circle and the imports that close it."""
    return [f"A circle of {', '.join(circle)}:", *(f"  {tie}" for tie in graph.ties(circle))]


def readme(root: Path = ROOT) -> Part:
    """The length of the README."""
    text = (root / "README.md").read_text(encoding="utf-8")
    return Part(
        [Row("README, lines", len(text.splitlines()), 150), Row("README, words", len(text.split()), 1_200)],
        ["Words: whatever stands between blanks, code and tables included, as `wc -w` counts."],
    )


def leaning(root: Path = ROOT, package: str = PACKAGE) -> Part:
    """The private names of transformers and accelerate that the package uses."""
    found = private_names(root / package)
    files = {place.rpartition(":")[0] for places in found.values() for place in places}
    details = [f"Private names of transformers and accelerate stand in {len(files)} file(s):"]
    for name, places in found.items():
        details.append(f"  {name}: {', '.join(places)}")
    return Part([Row("private names of transformers and accelerate", len(found), 5)], details)


# ---------------------------------------------------------------------- the code that travels


def forbidden_parts(source: str) -> list[str]:
    """What remote code should not hold: C, calls of a compiler, other processes, libraries of the system.

    Args:
        source: Of one Python file.

    Returns:
        One short text for each, with its line.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [(node.lineno, name) for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
            found.append((node.lineno, str(node.module)))
        elif isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in FORBIDDEN_CALLS:
            found.append((node.lineno, f"{name}()"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (lines := c_lines(node.value)):
            found.append((node.lineno, f"{lines} lines of C"))
    return [f"{what} (line {line})" for line, what in sorted(found)]


def c_lines(text: str) -> int:
    """How many lines a text has where it looks like C, else 0."""
    ends = sum(line.rstrip(" \\").endswith((";", "{", "}")) for line in text.splitlines())
    return len(text.splitlines()) if ends >= C_LINES or re.search(r"^\s*#include\s*[<\"]", text, re.MULTILINE) else 0


def code_in(folder: Path) -> dict[str, int]:
    """The source files of a model folder and their lines."""
    return {file.name: line_count(file) for file in sorted(folder.rglob("*")) if file.suffix in SOURCE}


def travelling(root: Path = ROOT) -> Part:
    """The code beside the weights of a GLINT-RU model that `glintru train` wrote, and that `save_pretrained` wrote."""
    with tempfile.TemporaryDirectory() as name:
        saved, trained, table = Path(name) / "saved", Path(name) / "trained", Path(name) / "table.csv"
        save_tiny_model(saved)
        write_interactions(table, rows=400, users=40, items=30)
        arguments = ["--data", str(table), "--output_dir", str(trained), "--set", "num_train_epochs=1", "--quiet"]
        run_python(["-m", PACKAGE, "train", *arguments], root)
        files = code_in(trained)
        details = [f"{written('glintru train', files)}; {written('save_pretrained', code_in(saved))}"]
        parts = []
        for file in sorted(trained.rglob("*")):
            if file.suffix in SOURCE - {".py"}:
                parts.append(f"{file.name}: {line_count(file)} lines of C")
            elif file.suffix == ".py":
                parts += [f"{file.name}: {part}" for part in forbidden_parts(file.read_text(encoding="utf-8"))]
    details += ["Found in the code that travels:", *(f"  {part}" for part in parts)] if parts else []
    rows = [
        Row("code that travels with GLINT-RU, files", len(files), 8),
        Row("code that travels with GLINT-RU, lines", sum(files.values()), 2_000),
        Row("C, compilers, processes, ctypes in it", len(parts), 0),
    ]
    return Part(rows, details)


def written(by: str, files: dict[str, int]) -> str:
    return f"{by} writes {len(files)} files of code, {sum(files.values()):,} lines"


def save_tiny_model(folder: Path) -> None:
    """Saves a GLINT-RU model and its vocabulary the way a plain user of transformers does."""
    from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor

    config = GlintRUConfig(vocab_size=11, hidden_size=16, num_attention_heads=2)
    GlintRUForSequentialRecommendation(config).save_pretrained(folder)
    GlintRUProcessor(list(range(10))).save_pretrained(folder)


def configuration() -> Part:
    """The fields of `GlintRUConfig` that are not those of every config of transformers."""
    from transformers import PreTrainedConfig

    from modeling_glintru import GlintRUConfig

    names = own_fields(GlintRUConfig, PreTrainedConfig)
    return Part([Row("fields of GlintRUConfig", len(names), 24)], [f"Fields: {', '.join(names)}"])


def own_fields(config: Any, base: Any) -> list[str]:
    """Names of the fields of a dataclass that its distant parent does not have; those of parents in between count."""
    inherited = {field.name for field in dataclasses.fields(base)}
    return [field.name for field in dataclasses.fields(config) if field.name not in inherited]


# ---------------------------------------------------------------------- processes


def command(root: Path = ROOT) -> Part:
    """What the command costs before it does anything."""
    return Part(
        [
            Row(f"glintru {option}, CPU seconds", median_cpu(["-m", PACKAGE, option], root), 0.5, ".2f")
            for option in ("--help", "--version")
        ],
        ["CPU seconds: the median of three processes, user and system, all threads."],
    )


def training_memory(root: Path = ROOT) -> Part:
    """The memory of `glintru train --data` on a table of fixed size."""
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "table.csv"
        write_interactions(table, ROWS, USERS, ITEMS)
        arguments = ["--data", str(table), "--output_dir", str(Path(name) / "model"), "--quiet"]
        report = train_with_memory(arguments, STEPS, root)
    return memory_rows(report)


def memory_rows(report: dict[str, Any]) -> Part:
    """The rows from what `train_memory.py` wrote."""
    memory = report["memory"]
    held = {where: entry.get("rss", entry["peak"]) / 1e9 for where, entry in memory.items()}
    first, *later = [held[where] for where in (*map(str, STEPS), "end") if where in held]
    rows = [
        Row("memory of glintru train, highest, GB", memory["exit"]["peak"] / 1e9, 1.3, ".2f"),
        Row(f"its growth after step {STEPS[0]}, times", max(later, default=first) / first, FLAT, ".2f"),
    ]
    places = ", ".join(f"{'step ' * where.isdigit()}{where} {value:.2f}" for where, value in held.items())
    highest = ", ".join(f"{entry['peak'] / 1e9:.2f}" for entry in memory.values())
    table = f"{ROWS:,} rows, {USERS:,} users, {ITEMS:,} items"
    return Part(rows, [f"Memory held on {table}, {report['steps']:,} steps: {places} GB; highest so far {highest} GB"])


# ---------------------------------------------------------------------- the table


def print_parts(parts: Iterable[Part]) -> list[Row]:
    """Prints the table, then what there is to say; gives the rows."""
    rows, details = [], []
    print(f"{'':50}{'measured':>10}{'goal':>11}  reached")
    for part in parts:
        rows += part.rows
        details += part.details
        print("\n".join(map(str, part.rows)), flush=True)
    print("\n" + "\n".join(details))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="also train on 300,000 rows, which takes many minutes")
    parser.add_argument("--check", action="store_true", help="end with code 1 where a goal is not reached")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    measures = [structure, travelling, configuration, readme, leaning, command]
    rows = print_parts(measure() for measure in [*measures, *([training_memory] if options.memory else [])])
    print("Not measured here: the speed (benchmarks/compare_commits.py OLD NEW) and the time of `make test`.")
    if not options.memory:
        print("Left out: the memory of a long training (--memory).")
    if options.json is not None:
        report = [{**dataclasses.asdict(row), "reached": row.reached} for row in rows]
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(options.check and not all(row.reached for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
