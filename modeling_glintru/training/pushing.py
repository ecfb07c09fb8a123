"""Uploads of a Trainer that take the model along and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from ..errors import RecipeError
from ..hub.card_text import CARD_FILE
from ..hub.repository import commit_files, model_files

__all__ = ["ModelPushes"]

logger = logging.get_logger(__name__)


class ModelPushes(Trainer):
    """A Trainer whose `push_to_hub` uploads the files of a model folder, each time in one commit.

    The plain Trainer uploads all of its folder, with `training_args.bin`: a pickle that holds paths of the machine and
    `hub_token` where one was given. During training it leaves the remote code out. Here weights, config, code and,
    with `processing_class`, the vocabulary go, and nothing more. `hub_strategy` may be `"end"` or `"every_save"`; the
    two that upload checkpoints are refused, since those hold the optimizer and pickles of random states.
    """

    push_in_progress: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.push_to_hub and self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise RecipeError(
                f"hub_strategy {HubStrategy(self.args.hub_strategy).value!r} uploads optimizer and random states; "
                "use 'every_save' or 'end', and keep checkpoints on this machine"
            )

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `transformers.Trainer.push_to_hub`; `kwargs` go to `create_model_card`, where the folder has no card.

        Returns:
            A `PushResult`, or the future of one where `blocking` is False; None in processes other than the first.
        """
        if getattr(self, "hub_model_id", None) is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        folder = Path(str(self.args.output_dir))
        if not (folder / CARD_FILE).exists():
            self.create_model_card(model_name=str(self.hub_model_id).rpartition("/")[2], **kwargs)
        self._wait_for_push()
        job = self._push(folder, commit_message or "End of training", token, revision)
        return job.result() if blocking else job

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Called by the Trainer after each save."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if not self.args.hub_always_push and self.push_in_progress is not None and not self.push_in_progress.is_done():
            return
        self._wait_for_push()
        job = self._push(Path(checkpoint_folder), f"Training in progress, step {self.state.global_step}")
        job.add_done_callback(_warn_of_failure)
        self.push_in_progress = PushInProgress([job])  # type: ignore[arg-type]

    def _wait_for_push(self) -> None:
        if self.push_in_progress is not None:
            self.push_in_progress.wait_until_done()

    def _push(self, folder: Path, message: str, token: str | None = None, revision: str | None = None) -> Any:
        """Copies what goes, since the folder may change or vanish, and uploads it in the background."""
        from huggingface_hub import HfApi

        copy = tempfile.TemporaryDirectory()
        for file in model_files(folder, str(self.hub_model_id)):
            target = Path(copy.name) / file.path
            if isinstance(file.content, bytes):
                target.write_bytes(file.content)
            else:
                shutil.copyfile(file.content, target)

        def upload() -> Any:
            with copy:
                return commit_files(
                    model_files(Path(copy.name), str(self.hub_model_id)),
                    str(self.hub_model_id),
                    revision=revision or self.args.hub_revision,
                    message=message,
                    token=token or self.args.hub_token,
                )

        return HfApi().run_as_future(upload)


def _warn_of_failure(job: Any) -> None:
    """A push that fails does not stop the training, but it does not go unsaid."""
    if not job.cancelled() and (error := job.exception()) is not None:
        logger.warning(f"A push during training failed, the next one takes all along: {error}")
