"""What Inference Endpoints run in a repository of GLINT-RU: JSON in, recommendations out. Copied there as `handler.py`.

Needs torch, transformers and safetensors only; the model and its code come from the repository itself.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

from transformers import pipeline

TASK: Any = "sequential-recommendation"  # not among the tasks that the signature of `pipeline` names
PARAMETERS = ("top_k", "exclude_seen", "allowed", "exclude", "unknown_items", "return_state")
# Held in memory; the user not heard of for longest goes first. One takes 5 kB at hidden_size 64, and about 0.1 kB for
# each different item and each remembered event.
MAX_USERS, MAX_EVENTS = 100_000, 100


class User(NamedTuple):
    """A user: the state, the ids of the items already seen, each once, and those of the newest events."""

    state: bytes | None = None
    seen: tuple[Any, ...] = ()
    events: tuple[Any, ...] = ()


class EndpointHandler:
    """Answers requests `{"inputs": ..., "parameters": {...}}`; a `ValueError` becomes a 400.

    `inputs` is one request, or a list of requests; a request is a list of raw item ids, oldest first, or an object:

    - `history`, `allowed`, `exclude`, `time_gap`: as of `SequentialRecommendationPipeline`, whose options `parameters`
      holds.
    - `state`: what an earlier answer gave with `return_state`, base64 text: the client stores it, and `history` is only
      what is new.
    - `user`: any id: the state is stored here between requests, in memory (lost on restart, at most MAX_USERS users),
      and `history`, or `events`, is only what is new.
    - `events`: instead of `history`, objects `{"item": id, "id": event id}`; an event whose id is among those of the
      last MAX_EVENTS events of this user is not counted again.

    Args:
        path: The folder of the repository.
    """

    def __init__(self, path: str = "", **_: Any) -> None:
        self.pipe = pipeline(TASK, model=path, trust_remote_code=True)
        self.users: OrderedDict[Any, User] = OrderedDict()
        self.lock = Lock()

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """One answer of the pipeline for one request, a list for a list; a `"state"` is base64 text.

        Raises:
            ValueError: The request is not understood; nothing of it was counted.
        """
        try:
            if not isinstance(data, Mapping) or "inputs" not in data:
                raise ValueError('a request is an object {"inputs": ..., "parameters": {...}}')
            inputs, parameters = data["inputs"], data.get("parameters") or {}
            unknown = [key for key in parameters if key not in PARAMETERS]
            if unknown:
                raise ValueError(f"there is no parameter {unknown[0]!r}; there are {', '.join(PARAMETERS)}")
            if not isinstance(inputs, (list, Mapping)):
                raise ValueError("inputs must be a list of raw item ids, an object, or a list of these")
            single = isinstance(inputs, Mapping) or not any(isinstance(one, (list, Mapping)) for one in inputs)
            with self.lock:  # two requests for one user would both start from the same state
                answers = self._recommend([inputs] if single else list(inputs), parameters)
            return answers[0] if single else answers
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(" ".join(str(error).split())) from error

    def _recommend(self, requests: list[Any], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = [_row(one) for one in requests]
        names, events = [row.pop("user", None) for row in rows], [row.pop("events", None) for row in rows]
        known = [name for name in names if name is not None]
        if len(set(known)) < len(known):
            raise ValueError("a user may be in a batch once: put all new events of one user in one request")
        leaves_out, users = parameters.get("exclude_seen"), [self.users.get(name, User()) for name in names]
        if leaves_out is None:
            leaves_out = not self.pipe.feature_extractor.recommend_seen
        counted = [dict.fromkeys(user.events) for user in users]
        for row, name, user, new, numbers in zip(rows, names, users, events, counted, strict=True):
            for event in new or ():
                if event.get("id") not in numbers:
                    row["history"].append(event["item"])
                    if event.get("id") is not None:
                        numbers[event["id"]] = None
            if name is not None:
                row["state"] = user.state
                row["exclude"] = [*(user.seen if leaves_out else ()), *(row.get("exclude") or ())]
        # The pipeline checks all of it before anything is stored.
        wanted = parameters.get("return_state", False)
        answers = self.pipe(rows, **{**parameters, "return_state": wanted or bool(known)})
        for row, name, user, numbers, answer in zip(rows, names, users, counted, answers, strict=True):
            state = answer.pop("state", None)
            if wanted:
                answer["state"] = base64.b64encode(state).decode()
            if name is not None:
                # What the model does not know need not be left out: so a user never takes more than the vocabulary.
                seen = dict.fromkeys((*user.seen, *filter(self.pipe.feature_extractor.__contains__, row["history"])))
                self.users[name] = User(state, tuple(seen), tuple(numbers)[-MAX_EVENTS:])
                self.users.move_to_end(name)
        while len(self.users) > MAX_USERS:
            self.users.popitem(last=False)
        return answers


def _row(one: Any) -> dict[str, Any]:
    """A request in any form as the pipeline takes it, still with `user` and `events`; the pipeline checks the rest."""
    row = dict(one) if isinstance(one, Mapping) else {"history": one}
    user, events = row.get("user"), row.get("events", [])
    if not isinstance(user, (str, int, type(None))):
        raise ValueError(f"user must be a text or an integer, got {user!r}")
    if user is not None and row.get("state") is not None:
        raise ValueError("give either user, whose state is kept here, or state")
    if "events" in row and ("history" in row or user is None):
        raise ValueError("events are counted for a user: give user, and give either history or events")
    if not isinstance(events, list) or not all(map(_is_event, events)):
        raise ValueError('events must be a list of {"item": id, "id": text or integer}')
    if row.get("state") is not None:
        try:
            row["state"] = base64.b64decode(row["state"], validate=True)
        except (TypeError, ValueError):
            raise ValueError("state is not the base64 text that an answer gave") from None
    return {**row, "history": row.get("history", [])}


def _is_event(event: Any) -> bool:
    return isinstance(event, Mapping) and "item" in event and isinstance(event.get("id"), (str, int, type(None)))
