"""What Inference Endpoints run in a repository of GLINT-RU: JSON in, recommendations out. Copied there as `handler.py`.

Needs torch, transformers and safetensors only; the model and its code come from the repository itself.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from transformers import pipeline

TASK: Any = "sequential-recommendation"  # not among the tasks that the signature of `pipeline` names
PARAMETERS = ("top_k", "exclude_seen", "allowed", "exclude", "unknown_items", "return_state")
KEYS = ("history", "state", "allowed", "exclude", "time_gap", "user", "events")
MAX_USERS = 100_000  # kept in memory, 5 kB each at hidden_size 64; the one not heard of for longest goes first


@dataclass
class User:
    """What is kept of a user: the state, the ids already seen, and the events already counted."""

    state: bytes | None = None
    seen: list[Any] = field(default_factory=list)
    events: set[Any] = field(default_factory=set)


class EndpointHandler:
    """Answers requests `{"inputs": ..., "parameters": {...}}`; a `ValueError` becomes a 400.

    `inputs` is one request, or a list of requests; a request is a list of raw item ids, oldest first, or an object:

    - `history`: raw item ids. With `state` only those that came after it.
    - `state`: what an earlier answer gave with `return_state`, base64 text: the client keeps it.
    - `user`: any id: the state is kept here between requests, in memory (lost on restart, at most MAX_USERS users), and
      `history`, or `events`, is only what is new.
    - `events`: instead of `history`, objects `{"item": id, "id": event id}`; an event id that came before for this user
      is not counted again.
    - `allowed`: raw item ids: nothing else is recommended.
    - `exclude`: raw item ids that are not to be recommended.
    - `time_gap`: for models with `use_time_gaps`, the time from the last item to now.

    `parameters`: `top_k`, `exclude_seen`, `allowed`, `exclude`, `unknown_items`, `return_state`, see
    `SequentialRecommendationPipeline`.

    Args:
        path: The folder of the repository.
    """

    def __init__(self, path: str = "", **_: Any) -> None:
        self.pipe = pipeline(TASK, model=path, trust_remote_code=True)
        self.users: OrderedDict[Any, User] = OrderedDict()
        self.lock = Lock()

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """One answer for one request, a list for a list.

        An answer is `{"items": [...], "num_unknown_items": int, "cold_start": bool}`, with `"state"`, a text, on
        request. `cold_start` says that no item of the user is known: the items are the most popular ones then.

        Raises:
            ValueError: The request is not understood; nothing of it was counted.
        """
        try:
            return self._answer(data)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(" ".join(str(error).split())) from error

    def _answer(self, data: Mapping[str, Any]) -> Any:
        if not isinstance(data, Mapping) or "inputs" not in data:
            raise ValueError('a request is an object {"inputs": ..., "parameters": {...}}')
        parameters = data.get("parameters") or {}
        unknown = [key for key in parameters if key not in PARAMETERS]
        if unknown:
            raise ValueError(f"there is no parameter {unknown[0]!r}; there are {', '.join(PARAMETERS)}")
        inputs = data["inputs"]
        if not isinstance(inputs, (list, Mapping)):
            raise ValueError("inputs must be a list of raw item ids, an object, or a list of these")
        single = isinstance(inputs, Mapping) or not any(isinstance(one, (list, Mapping)) for one in inputs)
        requests = [_request(one) for one in ([inputs] if single else inputs)]
        with self.lock:  # two requests for one user would both start from the same state
            answers = self._recommend(requests, parameters)
        return answers[0] if single else answers

    def _recommend(self, requests: list[dict[str, Any]], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        names = [request["user"] for request in requests if request["user"] is not None]
        if len(set(names)) < len(names):
            raise ValueError("a user may be in a batch once: put all new events of one user in one request")
        keeps = parameters.get("return_state", False)
        exclude_seen = parameters.get("exclude_seen")
        if exclude_seen is None:
            exclude_seen = not self.pipe.feature_extractor.recommend_seen
        rows, users = [], []
        for request in requests:
            user = None if request["user"] is None else self.users.get(request["user"], User())
            users.append(user)
            rows.append(_row(request, user, exclude_seen))
        # The pipeline checks all of it before anything is kept.
        answers = self.pipe(rows, **{**parameters, "return_state": keeps or bool(names)})
        for request, row, user, answer in zip(requests, rows, users, answers, strict=True):
            state = answer.pop("state", None)
            if keeps:
                answer["state"] = base64.b64encode(state).decode()
            if user is not None:
                seen = [*user.seen, *row["history"]]
                self.users[request["user"]] = User(state, seen, user.events | request["event_ids"])
                self.users.move_to_end(request["user"])
        while len(self.users) > MAX_USERS:
            self.users.popitem(last=False)
        return answers


def _request(one: Any) -> dict[str, Any]:
    """A request in any form, with all keys."""
    if not isinstance(one, Mapping):
        one = {"history": one}
    unknown = [key for key in one if key not in KEYS]
    if unknown:
        raise ValueError(f"a request has no {unknown[0]!r}; its keys are {', '.join(KEYS)}")
    if "history" in one and "events" in one:
        raise ValueError("give either history or events")
    if one.get("user") is not None and one.get("state") is not None:
        raise ValueError("give either user, whose state is kept here, or state")
    if not isinstance(one.get("user"), (str, int, type(None))):
        raise ValueError(f"user must be a text or an integer, got {one['user']!r}")
    if "events" in one and one.get("user") is None:
        raise ValueError("events are counted for a user: give user")
    state = one.get("state")
    if state is not None:
        try:
            state = base64.b64decode(state, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ValueError("state is not the base64 text that an answer gave") from None
    events = one.get("events", [])
    if not isinstance(events, list) or not all(_is_event(event) for event in events):
        raise ValueError('events must be a list of {"item": id, "id": text or integer}')
    history = one.get("history", [])
    return {"history": history, "events": events, "state": state, "user": one.get("user"), "event_ids": set(),
            "allowed": one.get("allowed"), "exclude": one.get("exclude"), "time_gap": one.get("time_gap")}  # fmt: skip


def _is_event(event: Any) -> bool:
    return isinstance(event, Mapping) and "item" in event and isinstance(event.get("id"), (str, int, type(None)))


def _row(request: dict[str, Any], user: User | None, exclude_seen: bool) -> dict[str, Any]:
    """What the pipeline gets; notes the ids of the events that are counted now."""
    if user is None:
        return {key: request[key] for key in ("history", "state", "allowed", "exclude", "time_gap")}
    history = list(request["history"])
    for event in request["events"]:
        number = event.get("id")
        if number is not None and (number in user.events or number in request["event_ids"]):
            continue
        history.append(event["item"])
        if number is not None:
            request["event_ids"].add(number)
    seen = user.seen if exclude_seen else []
    exclude = [*seen, *(request["exclude"] or ())]
    rest = {key: request[key] for key in ("allowed", "time_gap")}
    return {"history": history, "state": user.state, "exclude": exclude, **rest}
