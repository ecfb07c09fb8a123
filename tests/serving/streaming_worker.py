"""Takes clicks in as processes of their own, which a test may kill; run by `workers.py`.

Each line of stdin is a JSON object: `store`, a path, and `streams`, lists of `[user, item, event_id]`. A forked child
(the imports are paid for once) sends each stream from a thread of its own and writes `ack EVENT_ID` when a click is
acknowledged, `done` at the end, or the error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from modeling_glintru import GlintRUProcessor
from modeling_glintru.serving import StreamingRecommender
from tests.model.helpers import small_model

ITEMS = [f"item-{number:02d}" for number in range(30)]


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write: lines of several processes do not mix


def serve(model, store: str, streams: list) -> None:
    def send(stream: list) -> None:
        try:
            for user, item, event_id in stream:
                recommender.observe(user, item, event_id)
                say(f"ack {event_id}")
        except Exception as error:
            say(f"error {error}")

    with StreamingRecommender(model, GlintRUProcessor(ITEMS), store) as recommender:
        threads = [threading.Thread(target=send, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    say("done")


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children need nobody to wait for them
    model = small_model()
    say("ready")
    for line in sys.stdin:
        child = os.fork()
        if child:
            say(f"pid {child}")
            continue
        try:
            serve(model, **json.loads(line))
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()
