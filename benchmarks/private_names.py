"""Which private names of transformers' Trainer and of Accelerate the package leans on, read from its source.

A private name begins with one underscore. The library may change it without a word, so each one is a place that may
break with the next version. Counted are private names that are imported from one of the two libraries; those of the
Trainer and its surroundings that a subclass overrides or uses; and those that are reached on another object, or named
in a string, for `getattr`. Not counted is what transformers asks authors of models and processors to write
(`_init_weights`, `_no_split_modules`, ...).
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("transformers", "accelerate")
# Where the Trainer and what it hands out are defined.
TRAINER_MODULES = (
    *("transformers.trainer", "transformers.trainer_callback", "transformers.trainer_utils"),
    *("transformers.trainer_pt_utils", "transformers.training_args", "accelerate.accelerator"),
    *("accelerate.data_loader", "accelerate.optimizer", "accelerate.scheduler", "accelerate.state"),
)


def is_private(name: str) -> bool:
    """One underscore, not two: `__init__` and its like are Python's."""
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


def library_trees() -> list[ast.Module]:
    """The source of `TRAINER_MODULES` as installed; those that this version does not have are left out."""
    trees = []
    for module in TRAINER_MODULES:
        found = importlib.util.find_spec(module)
        if found is not None and found.origin is not None:
            trees.append(ast.parse(Path(found.origin).read_text(encoding="utf-8")))
    return trees


def defined_names(trees: list[ast.Module]) -> tuple[set[str], set[str]]:
    """Names of the classes, and the private names of functions, parameters and attributes, that sources define."""
    classes, private = set(), set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            classes.add(node.name)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            private.add(node.name)
        elif isinstance(node, ast.arg):
            private.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            private.add(node.attr)
    return classes, {name for name in private if is_private(name)}


def is_self(value: ast.expr) -> bool:
    """Whether an expression is `self`, `cls` or `super()`: the object of the class that it stands in."""
    if isinstance(value, ast.Call):
        value = value.func
    return isinstance(value, ast.Name) and value.id in ("self", "cls", "super")


def last_name(expression: ast.expr) -> str:
    """`C` of `a.b.C`, and of `C[T]`."""
    return ast.unparse(expression).split("[")[0].rpartition(".")[2]


def trainer_like(trees: dict[Path, ast.Module], library_classes: set[str]) -> set[str]:
    """Names of the classes of the package that descend from one of the library, by way of others of the package too."""
    bases = {
        node.name: {last_name(base) for base in node.bases}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while new := {name for name, above in bases.items() if above & (library_classes | found)} - found:
        found |= new
    return found


def uses(tree: ast.Module, names: set[str], classes: set[str]) -> Iterator[tuple[str, int]]:
    """Each use of a private library name in a file: the name and the line.

    Args:
        tree: The file.
        names: Private names that the library defines.
        classes: Names of the classes in whose `self` they count; elsewhere `self` is an object of the package's own.
    """
    inside = {
        id(node)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef) and owner.name in classes
        for node in ast.walk(owner)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES and not node.level:
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from ((part, node.lineno) for part in parts if is_private(part))
        elif isinstance(node, ast.FunctionDef) and id(node) in inside and node.name in names:
            yield node.name, node.lineno
        elif isinstance(node, ast.Attribute) and node.attr in names and (id(node) in inside or not is_self(node.value)):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call):
            yield from ((key.arg, node.lineno) for key in node.keywords if key.arg in names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
            yield node.value, node.lineno


def private_names(folder: Path) -> dict[str, list[str]]:
    """For each private name of the libraries that a package uses, where: `"file:line"`, with the file from `folder`."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.py"))}
    library_classes, names = defined_names(library_trees())
    classes = trainer_like(trees, library_classes)
    found: dict[str, list[str]] = {}
    for file, tree in trees.items():
        for name, line in sorted(set(uses(tree, names, classes)), key=lambda use: use[1]):
            found.setdefault(name, []).append(f"{file.relative_to(folder).as_posix()}:{line}")
    return dict(sorted(found.items()))
