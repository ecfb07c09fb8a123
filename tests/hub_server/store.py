"""The repositories of the loopback Hub, in memory: commits are whole trees, branches point at them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

KINDS = ("model", "dataset")


@dataclass(frozen=True)
class Blob:
    """A file's content; `lfs` says whether it came through the large-file route, which changes its ids."""

    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """The id that git has for what lies in the repository: the file, or the pointer to it."""
        data = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return text.encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """
    Args:
        sha: 40 hexadecimal digits.
        files: All files of the repository at this commit, by path.
        touched: The paths that it wrote or deleted.
        title: First line of its message.
    """

    sha: str
    files: dict[str, Blob]
    touched: tuple[str, ...]
    title: str


@dataclass
class Repo:
    """One repository; `readers` are the users that a private or gated one lets in beside its owner."""

    id: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)  # uploaded, perhaps not committed (yet)

    def __post_init__(self) -> None:
        if not self.branches:
            self.branches["main"] = []
            self.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, [], "initial commit")

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def at(self, revision: str) -> Commit | None:
        """The newest commit of a branch, or the commit with that sha."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((c for commits in self.branches.values() for c in commits if c.sha == revision), None)

    def commit(self, branch: str, added: dict[str, Blob], deleted: list[str], title: str) -> Commit:
        """All of it or nothing: the branch moves only when the tree is complete."""
        before = self.branches[branch][-1] if self.branches[branch] else Commit("", {}, (), "")
        files = {path: blob for path, blob in before.files.items() if path not in deleted} | added
        names = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{self.id} {before.sha} {title}\n{names}".encode()).hexdigest()
        commit = Commit(sha, files, tuple(sorted([*added, *deleted])), title)
        self.branches[branch].append(commit)
        return commit

    def start_branch(self, name: str, start: str) -> None:
        """A new branch whose newest commit is `start`, a branch or a sha."""
        tip = self.at(start)
        history = next(commits for commits in self.branches.values() if tip in commits)
        self.branches[name] = history[: history.index(tip) + 1]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Contents by path, for assertions."""
        commit = self.at(revision)
        assert commit is not None
        return {path: blob.data for path, blob in commit.files.items()}
