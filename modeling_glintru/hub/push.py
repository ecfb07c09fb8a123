"""A model folder to the Hub, in one commit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import HubError, ModelFolderError
from ..models.configuration_glintru import ITEM_FILES
from ..models.loading import load_model_folder
from .card import write_card
from .card_text import CARD_FILE, is_signed
from .endpoint import HANDLER_FILE
from .repository import PushResult, SharedFile, commit_files, model_files

__all__ = ["PushPlan", "copy_results", "plan_push", "push_folder"]

RESULTS = (
    *("metrics.json", "recipe.yaml", "training_log.json", "learning_curves.png", HANDLER_FILE),
    *ITEM_FILES,
)


@dataclass(frozen=True)
class PushPlan:
    """What a push would do.

    Args:
        files: What is uploaded, as it would be.
        left_out: Names in the folder that stay here.
    """

    files: list[SharedFile]
    left_out: list[str]

    def describe(self) -> str:
        """A line for each file, and what stays."""
        width = max(len(file.path) for file in self.files)
        lines = [f"{file.path.ljust(width)}  {file.size:>12,} bytes" for file in self.files]
        lines.append(f"{len(self.files)} files, {sum(file.size for file in self.files):,} bytes")
        if self.left_out:
            lines.append("stays here: " + ", ".join(self.left_out))
        return "\n".join(lines)


def plan_push(folder: str | Path, repo_id: str) -> PushPlan:
    """Checks a model folder and lists what a push uploads; reaches no network.

    Raises:
        ModelFolderError: It is no folder, or no whole model: see `loading.load_model_folder`.
        HubError: A file holds what must not leave: see `repository.model_files`.
        CardError: The card's header is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(f"there is no model folder {folder}")
    if repo_id.count("/") > 1 or not repo_id.strip("/"):
        raise HubError(f"{repo_id!r} is no name of a repository, which is owner/name")
    files = model_files(folder, repo_id)
    load_model_folder(folder)  # weights that do not load, or without their vocabulary, are of no use to anybody
    uploaded = {file.path for file in files}
    return PushPlan(files, sorted(entry.name for entry in folder.iterdir() if entry.name not in uploaded))


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload the model with glintru push",
    token: str | None = None,
    overwrite_card: bool = False,
) -> PushResult:
    """Uploads a model folder in one commit; see `plan_push` for what goes, `repository.commit_files` for the options.

    Raises:
        ModelFolderError, HubError, CardError: As `plan_push` and `commit_files`; nothing was changed on the Hub.

    Example:
        >>> push_folder("outputs/ml-1m", "me/glintru-ml-1m", private=True)
    """
    return commit_files(
        plan_push(folder, repo_id).files,
        repo_id,
        private=private,
        revision=revision,
        message=message,
        token=token,
        overwrite_card=overwrite_card,
    )


def copy_results(source: Path, target: Path) -> None:
    """Copies what a model folder holds beside weights, vocabulary and code to another folder of the same model.

    The card of `source` is written anew with the name of `target`, unless somebody has edited one of the two.
    """
    for name in RESULTS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    old, new = source / CARD_FILE, target / CARD_FILE
    if not old.is_file() or (new.exists() and not is_signed(new.read_text(encoding="utf-8"))):
        return
    if is_signed(old.read_text(encoding="utf-8")) and (target / "recipe.yaml").is_file():
        write_card(target, target.absolute().name)
    else:
        shutil.copyfile(old, new)
