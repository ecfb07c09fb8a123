"""Mutation testing: small faults are put into a file one by one, and its tests must notice each of them.

    pip install cosmic-ray
    python -m research.mutants losses --most 60 --output mutants.jsonl
    python -m research.mutants --page mutants.jsonl

The first command takes at most 60 of the faults of each file of the group `losses` and writes one line for each. The
second prints the table and the faults that no test noticed, as in research/mutants.md. The faults are those of
cosmic-ray, and besides each statement that only calls something, assigns to a part of something, or changes a value in
place is deleted. It works in a copy of the repository. The libraries are loaded once; each fault is then tested by a
process forked from there, because loading them takes longer than most of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

ROOT = Path(__file__).parent.parent
LOADED = ("torch", "transformers.modeling_utils", "transformers.trainer", "polars", "pyarrow.parquet", "pandas")
LOADED += ("datasets", "hypothesis", "onnxruntime", "torchmetrics", "_pytest.fixtures")
# What makes no difference (`==` instead of `is` with None, `is` instead of `==` with small integers).
WITHOUT = ("_Eq_Is", "_Eq_IsNot", "_NotEq_Is", "_NotEq_IsNot", "_Is_Eq", "_IsNot_NotEq")
DATA = "test_row_cases test_bad_input test_interactions"
READERS = {
    "readers": "test_frames test_file_names test_sources test_json_lines ../hub/test_dataset",
    "text_files": "test_text_files test_text_rows",
    "text_layout": "test_text_files",
    "json_lines": "test_json_lines test_session_lists",
    "times": "test_times",
    "ids": "test_ids test_codes",
    "rows": "test_rows test_row_notes",
    "row_filters": "test_row_filters",
}
# By group and file of modeling_glintru, the tests of the file: the nearest, and those that run if these pass.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "ranking": {
        "evaluation/ranking.py": (
            "evaluation/test_ranking evaluation/test_protocols",
            "evaluation/test_served_ranking evaluation/test_evaluate evaluation/test_trainer_metrics",
        ),
        "evaluation/metrics.py": ("evaluation/test_metrics", "evaluation/test_trainer_metrics evaluation/test_report"),
    },
    "losses": {
        "models/losses.py": ("model/test_losses model/test_negatives model/test_r_drop", "model/test_operations")
    },
    "state": {
        "models/state_glintru.py": ("model/test_state", "serving/test_step attack/test_states serving/test_store"),
        "models/state_files.py": ("model/test_state", "attack/test_states model/test_remote_code"),
        "serving/sqlite_store.py": ("serving/test_store attack/test_store", "serving/test_streaming"),
        "serving/store.py": ("serving/test_store", "serving/test_streaming attack/test_store"),
        "serving/user_states.py": ("serving/test_streaming", "attack/test_states serving/test_time_gaps"),
    },
    "readers": {
        f"data/{name}.py": (
            " ".join(f"data/{test}" for test in near.split()),
            " ".join(f"data/{test}" for test in DATA.split() if test not in near.split()),
        )
        for name, near in READERS.items()
    },
}
PYTEST = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-m", "not slow and not needs_data"]
# Without a training, and the tests of the cross-entropy, which is in another file.
PYTEST += ["-k", "not test_cross_entropy and not float32_and_bfloat16 and not test_the_command_and_training"]


class DeleteStatement(Operator):
    """Deletes a statement that is there for its effect: a call, an assignment to a part, a change in place."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type != "simple_stmt":
            return
        first = node.children[0]
        is_call = first.type == "atom_expr"
        is_change = first.type == "expr_stmt" and (
            first.children[0].type == "atom_expr"
            or (first.children[1].type == "operator" and first.children[1].value != "=")
        )
        if is_call or is_change:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        leaf = node.get_first_leaf()
        node.children[0] = Keyword("pass", leaf.start_pos, leaf.prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


@dataclass
class Mutant:
    """A fault: the file and line it is in, the lines before and after, and what the tests made of it."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    result: str = ""
    seconds: float = 0.0
    code: str = ""

    @property
    def key(self) -> tuple[str, int, str, str, str]:
        return self.file, self.line, self.operator, self.before, self.after


def read(path: Path) -> list[Mutant]:
    return [Mutant(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def in_annotation(node: Any) -> bool:
    """Whether a node is part of a type, which nothing evaluates."""
    while node.parent is not None:
        parent = node.parent
        if parent.type in ("tfpdef", "annassign") and node is parent.children[2 if parent.type == "tfpdef" else 1]:
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        node = parent
    return False


def mutants_of(file: str, code: str, most: int, seed: int) -> list[Mutant]:
    """A sample of a file's faults: one of each kind at each place, then `most` of these."""
    operators = {name: get_operator(name) for name in operator_names() if not name.endswith(WITHOUT)}
    operators = {name: kind() for name, kind in operators.items() if not kind.arguments()}
    operators["core/DeleteStatement"] = DeleteStatement()
    places: dict[tuple[Any, str], list[tuple[str, int]]] = {}
    nodes = list(ast_nodes(parso.parse(code)))
    for name, operator in operators.items():
        found = [(node, start) for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (node, start) in enumerate(found):
            if not in_annotation(node):
                family = "_".join(name.split("/")[1].split("_")[:2])
                places.setdefault((start, family), []).append((name, occurrence))
    draw, found_mutants = random.Random(f"{seed} {file}"), []
    chosen = [draw.choice(places[place]) for place in sorted(places)]
    draw.shuffle(chosen)
    for name, occurrence in chosen:
        try:
            changed = mutate_code(code, operators[name], occurrence)
            compile(changed, file, "exec")
        except (SyntaxError, AttributeError):  # no program, or an operator that does not know this form
            continue
        found_mutants.append(mutant(file, code, changed, name))
        if len(found_mutants) == most:
            break
    return sorted(found_mutants, key=lambda each: each.line)


def mutant(file: str, code: str, changed: str, name: str) -> Mutant:
    old, new = code.splitlines(), changed.splitlines()
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    parts = [block for block in blocks if block[0] != "equal"]
    begin, end, new_begin, new_end = parts[0][1], parts[-1][2], parts[0][3], parts[-1][4]
    before, after = (" ".join(line.strip() for line in lines) for lines in (old[begin:end], new[new_begin:new_end]))
    return Mutant(file, begin + 1, name.split("/")[1], before, after, code=changed)


def tested(folder: Path, names: str, limit: float) -> tuple[str, float]:
    """What the tests of the copy in `folder` say: the first test that failed, `survived` or `timeout`."""
    if not names:
        return "survived", 0.0
    tests = [f"tests/{name}.py" for name in names.split()]
    output, start = folder / "output.txt", time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(stream, number)
        import pytest

        from tests.conftest import HUB

        threading.Thread(target=HUB._server.serve_forever, args=(0.05,), daemon=True).start()
        os._exit(pytest.main([*PYTEST, *tests]))
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            seconds = time.monotonic() - start
            if ended or seconds > limit:
                break
            time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # and what the tests started
    if not ended:
        os.waitpid(child, 0)
        return "timeout", seconds
    if status == 0:
        return "survived", seconds
    failed = [line for line in output.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (failed[0].split(" - ")[0] if failed else f"exit status {status}"), seconds


def load_libraries() -> None:
    """Loads what every test would load, but nothing of this package."""
    from tests.conftest import HUB  # before huggingface_hub, which reads the address of the tests' Hub once

    HUB._server.shutdown()  # each process of tests serves it by itself
    for name in LOADED:
        try:
            __import__(name)
        except ImportError:
            print(f"without {name}", file=sys.stderr)
    assert "modeling_glintru" not in sys.modules


def run(group: str, most: int, seed: int, output: Path, only: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the copy is removed
    done = {each.key for each in read(output)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("modeling_glintru", "tests", "configuration", "docs", "research", "examples", "benchmarks"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "glintru.py", "Makefile"):
            shutil.copy(ROOT / name, folder / name)
        os.chdir(folder)
        sys.path[:0] = [str(folder)]
        os.environ |= {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        load_libraries()
        for file, names in GROUPS[group].items():
            if only not in file:
                continue
            path = folder / "modeling_glintru" / file
            code, limits = path.read_text(), []
            for part in names:
                found, seconds = tested(folder, part, 600)
                limits.append(3 * seconds + 10)
                if found != "survived":
                    sys.exit(f"{file} fails without a fault: {found}\n{(folder / 'output.txt').read_text()}")
                print(f"{file}: {seconds:.1f} s without a fault", flush=True)
            sys.dont_write_bytecode = True  # the next fault may have the same size and second
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            for each in mutants_of(file, code, most, seed):
                if each.key in done:
                    continue
                path.write_text(each.code)
                each.code = ""
                for part, limit in zip(names, limits, strict=True):
                    each.result, seconds = tested(folder, part, limit)
                    each.seconds = round(each.seconds + seconds, 1)
                    if each.result != "survived":
                        break
                with output.open("a") as lines:
                    lines.write(json.dumps(asdict(each)) + "\n")
                print(f"{each.result[:90]}: {file}:{each.line} {each.operator}", flush=True)
            path.write_text(code)


def page(path: Path) -> str:
    """The table of the files and the list of what survived."""
    mutants = read(path)
    lines = ["| File | Faults | Noticed | Not noticed | Share |", "|---|--:|--:|--:|--:|"]
    for group, files in GROUPS.items():
        for name, members in (*((file, (file,)) for file in files), (f"**{group}**", tuple(files))):
            results = Counter(each.result == "survived" for each in mutants if each.file in members)
            total = results.total()
            if total:
                lines.append(
                    f"| {name} | {total} | {results[False]} | {results[True]} | {results[False] / total:.1%} |"
                )
    for each in mutants:
        if each.result == "survived":
            lines.append(f"- {each.file}:{each.line} {each.operator}: `{each.before}` → `{each.after}`")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="?", choices=GROUPS)
    parser.add_argument("--most", type=int, default=60, help="faults of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only files with this in their name")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("mutants.jsonl"),
        help="lines are added to it; faults that it has are not tested again",
    )
    parser.add_argument("--page", type=Path, help="print the table of this file")
    options = parser.parse_args()
    if options.page:
        print(page(options.page))
    else:
        run(options.group, options.most, options.seed, options.output.absolute(), options.only)


if __name__ == "__main__":
    main()
