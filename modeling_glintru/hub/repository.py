"""Which files of a model folder go to the Hub, what is taken out of them, and their one commit."""

from __future__ import annotations

import fnmatch
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.hf_api import RepoFile

from ..errors import HubError
from ..models.configuration_glintru import MANIFEST_FILE, is_described, size_and_digest
from ..models.loading import MODEL_FILES, cannot_connect, first_line, hub_errors
from ..models.untrusted_text import parse_json, parse_yaml
from .card_text import CARD_FILE, CardError, check_card, is_signed, sign, with_repository
from .leaving import check_binary_file, check_file_of_folder, check_text

__all__ = ["PushResult", "SharedFile", "commit_files", "model_files"]


@dataclass(frozen=True)
class SharedFile:
    """
    Args:
        path: Name in the repository.
        content: Where the file is, or what is uploaded in its place.
        size: Bytes.
    """

    path: str
    content: Path | bytes
    size: int


@dataclass(frozen=True)
class PushResult:
    """
    Args:
        url: Page of the repository.
        repo_id: `owner/name`.
        commit: The commit that holds the files.
        changed: Paths that it added, changed or deleted; empty where everything was there already.
        kept_card: Whether a card that was edited on the Hub was left as it is.
    """

    url: str
    repo_id: str
    commit: str
    changed: tuple[str, ...]
    kept_card: bool = False


def model_files(folder: Path, repo_id: str) -> list[SharedFile]:
    """The files of a model folder that a push uploads, without what is only of this machine.

    Recipes and metrics name the source of the data by its file name alone, configs lose the path that they were
    loaded from, the card gets the repository's name, and `manifest.json` is that of what leaves.

    Raises:
        HubError: A file that would be uploaded holds a secret or a path of this machine, is damaged, or is a link to
            somewhere else.
        CardError: The card's header is damaged.
    """
    files = []
    for entry in sorted(folder.iterdir()):
        if (
            entry.name == MANIFEST_FILE
            or entry.is_dir()
            or not any(fnmatch.fnmatch(entry.name, pattern) for pattern in MODEL_FILES)
        ):
            continue
        check_file_of_folder(entry)
        content: Path | bytes = entry
        if entry.suffix in (".safetensors", ".png"):
            check_binary_file(entry)
        else:
            raw = entry.read_bytes()
            text = _cleaned(entry, raw, repo_id)
            check_text(entry, text)
            content = text.encode("utf-8") if text.encode("utf-8") != raw else entry
        size = len(content) if isinstance(content, bytes) else entry.stat().st_size
        files.append(SharedFile(entry.name, content, size))
    manifest = _manifest(files)
    return [*files, SharedFile(MANIFEST_FILE, manifest, len(manifest))]


def _manifest(files: Iterable[SharedFile]) -> bytes:
    """`manifest.json` of the files as they leave, which differ from those of the folder."""
    entries = {}
    for file in files:
        if is_described(file.path):
            with io.BytesIO(file.content) if isinstance(file.content, bytes) else file.content.open("rb") as opened:
                entries[file.path] = size_and_digest(opened)
    return (json.dumps({"files": entries}, indent=1) + "\n").encode()


def _cleaned(file: Path, raw: bytes, repo_id: str) -> str:
    """The text of a file as it leaves; errors as of `model_files`."""
    name = file.name
    try:
        text = raw.decode("utf-8")
        return _without_places(name, text, repo_id)
    except CardError:
        raise
    except ValueError as error:
        raise HubError(f"{file} is damaged and cannot be uploaded ({first_line(error)})") from error


def _without_places(name: str, text: str, repo_id: str) -> str:
    if name == CARD_FILE:
        check_card(text)
        return sign(with_repository(text, repo_id))
    if name == "recipe.yaml":
        recipe = parse_yaml(text)
        return text if _without_folders(recipe) else yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    if name.endswith(".json"):
        content = parse_json(text)
        if not isinstance(content, dict):
            return text
        clean = _without_folders(content.get("recipe"))
        for key in ("_name_or_path", "name_or_path"):
            clean = content.pop(key, None) is None and clean
        return text if clean else json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text


def _without_folders(recipe: Any) -> bool:
    """Leaves of paths in a recipe the file name alone; whether there was nothing to do."""
    data = recipe.get("data") if isinstance(recipe, dict) else None
    if not isinstance(data, dict):
        return True
    clean = True
    for key in ("source", "item_titles"):
        value = data.get(key)
        if isinstance(value, str) and not value.startswith("hf://") and (name := _file_name(value)) != value:
            data[key], clean = name, False
    return clean


def _file_name(source: str) -> str:
    """The last part of what is a path; a data set `owner/name` of the Hub is none."""
    path = PureWindowsPath(source) if "\\" in source else PurePosixPath(source)
    on_hub = source.count("/") == 1 and not source.startswith((".", "~", "/")) and not path.suffix
    return source if on_hub else path.name or source


def commit_files(
    files: Sequence[SharedFile],
    repo_id: str,
    *,
    kind: str = "model",
    private: bool | None = None,
    revision: str | None = None,
    message: str,
    token: str | None = None,
    ours: Iterable[str] = MODEL_FILES,
    overwrite_card: bool = False,
) -> PushResult:
    """Makes the repository hold these files, by one commit; a file that is there already is not uploaded again.

    Nothing is visible before the commit, so a push that is cut off leaves the repository as it was.

    Args:
        files: From `model_files`.
        repo_id: `owner/name`, or a name under the account that is logged in; made where it is missing.
        kind: `"model"` or `"dataset"`.
        private: Whether a new repository is private; None for the account's default.
        revision: A branch, made where it is missing.
        message: Title of the commit.
        token: Instead of the client's own login.
        ours: Patterns of what a push may delete when it is not among `files`, such as parts of earlier weights.
        overwrite_card: Whether a card that was edited on the Hub is replaced too.

    Raises:
        HubError: The Hub cannot be reached, or says no; the message says what to do.
    """
    _ask_about_card(files, kind)
    api = HfApi(token=token)
    branch = revision or "main"
    with hub_errors(repo_id, revision, writing=True):
        url = api.create_repo(repo_id, private=private, repo_type=kind, exist_ok=True)
        repo_id = url.repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
        parent = api.repo_info(repo_id, revision=branch, repo_type=kind).sha
        before = _contents(api, repo_id, kind, parent)
        kept_card = not overwrite_card and CARD_FILE in before and _was_edited(api, repo_id, kind, parent)
        if kept_card:
            files = [file for file in files if file.path != CARD_FILE]
        names = {file.path for file in files} | ({CARD_FILE} if kept_card else set())
        stale = [p for p in before if p not in names and any(fnmatch.fnmatch(p, pattern) for pattern in ours)]
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(file.path, file.content) for file in files),
                *(CommitOperationDelete(path) for path in stale),
            ],
            commit_message=message,
            repo_type=kind,
            revision=branch,
            parent_commit=parent,
        )
        after = _contents(api, repo_id, kind, commit.oid)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return PushResult(str(url), repo_id, commit.oid, tuple(changed), kept_card)


def _ask_about_card(files: Iterable[SharedFile], kind: str) -> None:
    """Lets the Hub look at the card before anything is made or uploaded."""
    card = next((file.content for file in files if file.path == CARD_FILE), None)
    if card is None:
        return
    text = (card if isinstance(card, bytes) else card.read_bytes()).decode("utf-8")
    with hub_errors(CARD_FILE, writing=True):
        try:
            RepoCard(text, ignore_metadata_errors=True).validate(repo_type=kind)
        except ValueError as error:
            raise CardError(
                f"the Hub does not take the header of {CARD_FILE}: {' '.join(str(error).split())}"
            ) from error
        except Exception as error:
            # Before version 2 the client asks huggingface.co even where HF_ENDPOINT names another Hub. The commit asks
            # the right one again.
            if not cannot_connect(error):
                raise


def _contents(api: HfApi, repo_id: str, kind: str, revision: str | None) -> dict[str, str]:
    """The id of each file's content by path."""
    tree = api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=kind)
    return {entry.path: entry.blob_id for entry in tree if isinstance(entry, RepoFile)}


def _was_edited(api: HfApi, repo_id: str, kind: str, revision: str | None) -> bool:
    file = api.hf_hub_download(repo_id, CARD_FILE, repo_type=kind, revision=revision)
    return not is_signed(Path(file).read_text(encoding="utf-8"))
