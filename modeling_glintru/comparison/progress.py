"""How far an interrupted trial came."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from ..training.checkpoint import replace_json
from ..training.stopping import Interruptions

__all__ = ["TrialProgress"]


class TrialProgress(Interruptions):
    """Beside each checkpoint of a trial: the CPU seconds so far, and the commit of the code that computed them.

    A trial goes on only with the same code; otherwise, and where no commit says which code it is, it starts anew.

    Args:
        folder: Of the trial's checkpoints.
        commit: Of the code that runs now.
        deadline: When the trial stops, on the clock of `time.monotonic`; None never.
    """

    def __init__(self, folder: Path, commit: str | None, deadline: float | None = None) -> None:
        super().__init__(deadline)
        self.file = folder / "progress.json"
        self.commit = commit
        self.began = time.process_time()
        self.seconds_before = 0.0
        past = self._past()
        self.goes_on = past is not None
        if past is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        else:
            self.seconds_before = past["cpu_seconds"]

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the trial, those before an interruption included."""
        return self.seconds_before + time.process_time() - self.began

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The Trainer has written a checkpoint."""
        replace_json(self.file, {"cpu_seconds": self.cpu_seconds, "commit": self.commit})
        super().on_save(args, state, control, **kwargs)

    def _past(self) -> dict[str, Any] | None:
        if self.commit is None or self.commit.endswith("-dirty"):
            return None
        try:
            past = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return past if past.get("commit") == self.commit else None
