"""Who imports whom in a repository, read from its source: the longest chain of imports, and every circle.

A node is a file or a folder at the top of the package, or another folder at the top of the repository. Imports inside
functions and those for type checkers count like all others. A module that is loaded by its name in a string
(`import_module`) is not seen; `Graph.hidden` says where that happens.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

# Folders at the top of a repository that use the package as everybody may, and so are not part of its structure.
USERS = frozenset({"tests", "docs", "examples", "build", "dist", "outputs"})


@dataclass(frozen=True)
class Arrow:
    """An import: the importing file and line, and the file that it needs; paths from the top of the repository."""

    source: Path
    line: int
    target: Path

    def __str__(self) -> str:
        return f"{self.source.as_posix()}:{self.line} imports {self.target.as_posix()}"


@dataclass(frozen=True)
class Graph:
    """The imports of a repository.

    Args:
        package: Name of the package's folder.
        files: All source files, as paths from the top of the repository.
        arrows: The imports between them.
        hidden: Places, `"file:line"`, that import by a name in a string.
    """

    package: str
    files: list[Path]
    arrows: list[Arrow]
    hidden: list[str] = field(default_factory=list)

    def node(self, file: Path) -> str:
        """The node that a file belongs to: a folder ends in a slash."""
        depth = 2 if file.parts[0] == self.package else 1
        name = "/".join(file.parts[:depth])
        return name if len(file.parts) == depth else f"{name}/"

    @cached_property
    def nodes(self) -> list[str]:
        """All nodes, in alphabetical order."""
        return sorted({self.node(file) for file in self.files})

    @cached_property
    def between_nodes(self) -> dict[str, set[str]]:
        """For each node the other nodes that it imports."""
        found: dict[str, set[str]] = {node: set() for node in self.nodes}
        for arrow in self.arrows:
            source, target = self.node(arrow.source), self.node(arrow.target)
            if source != target:
                found[source].add(target)
        return found

    def longest_chain(self) -> list[str]:
        """The longest chain of imports, from the node that nobody needs down; all nodes of a circle stand in it."""
        return longest_chain(self.between_nodes)

    def circles(self) -> list[list[str]]:
        """Groups of nodes that import each other."""
        return circles(self.between_nodes)

    def file_circles(self) -> list[list[str]]:
        """Groups of files of one node that import each other, such as two modules of one folder."""
        found: dict[str, set[str]] = {file.as_posix(): set() for file in self.files}
        for arrow in self.arrows:
            if self.node(arrow.source) == self.node(arrow.target) and arrow.source != arrow.target:
                found[arrow.source.as_posix()].add(arrow.target.as_posix())
        return circles(found)

    def ties(self, group: Iterable[str]) -> list[Arrow]:
        """The imports between the members of a circle, of nodes or of files: the first one of each pair."""
        members, found = set(group), {}
        for arrow in sorted(self.arrows, key=lambda arrow: (arrow.source, arrow.line)):
            for name in (lambda file: file.as_posix()), self.node:
                pair = name(arrow.source), name(arrow.target)
                if pair[0] != pair[1] and members.issuperset(pair):
                    found.setdefault(pair, arrow)
        return list(found.values())


def import_graph(root: Path, package: str) -> Graph:
    """Reads the imports of a package and of the folders beside it.

    Args:
        root: The top of the repository.
        package: Name of the package's folder in it.
    """
    folders = [
        entry for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name not in USERS and entry.name[0] != "."
    ]
    files = [
        file.relative_to(root)
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    ]
    known, arrows, hidden = set(files), [], []
    for file in files:
        tree = ast.parse((root / file).read_text(encoding="utf-8"), filename=str(file))
        for statement in ast.walk(tree):
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                targets = {target for name in imported(statement, file) if (target := module_file(name, known))}
                arrows += [Arrow(file, statement.lineno, target) for target in sorted(targets) if target != file]
            elif isinstance(statement, ast.Call) and "import_module" in ast.unparse(statement.func):
                hidden.append(f"{file.as_posix()}:{statement.lineno}")
    return Graph(package, files, arrows, sorted(hidden))


def imported(
    statement: ast.Import | ast.ImportFrom, file: Path
) -> list[tuple[tuple[str, ...], tuple[str, ...] | None]]:
    """What an import statement asks for: parts of a dotted name, and of another one to take where that is no module.

    `from a.b import c` may mean the module `a.b.c`, or a name in `a.b`.
    """
    if isinstance(statement, ast.Import):
        return [(tuple(alias.name.split(".")), None) for alias in statement.names]
    named = tuple(statement.module.split(".")) if statement.module else ()
    base = (*file.parts[: len(file.parts) - statement.level], *named) if statement.level else named
    return [((*base, alias.name), base) for alias in statement.names]


def module_file(name: tuple[tuple[str, ...], tuple[str, ...] | None], known: set[Path]) -> Path | None:
    """The file of the first of both names that is a module of the repository."""
    for parts in name:
        if not parts:
            continue
        for file in (Path(*parts).with_suffix(".py"), Path(*parts) / "__init__.py"):
            if file in known:
                return file
    return None


# ---------------------------------------------------------------------- graphs of names


def reachable(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """All names that one or more arrows lead to."""
    found: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += arrows[name]
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of two and more names each of which leads to all others of its group."""
    reached = {name: reachable(name, arrows) for name in arrows}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in arrows}
    return sorted([*group] for group in groups if len(group) > 1)


def longest_chain(arrows: Mapping[str, set[str]]) -> list[str]:
    """The longest way along arrows, which passes a circle once, with all its names."""
    group_of = {name: (name,) for name in arrows}
    for circle in circles(arrows):
        group_of |= {name: tuple(circle) for name in circle}
    chains: dict[tuple[str, ...], list[str]] = {}

    def chain(group: tuple[str, ...]) -> list[str]:
        if group not in chains:
            below = {group_of[target] for name in group for target in arrows[name]} - {group}
            chains[group] = [*group, *max((chain(other) for other in sorted(below)), key=len, default=[])]
        return chains[group]

    return max((chain(group) for group in sorted(set(group_of.values()))), key=len, default=[])
