"""A Hub on this machine, for the real client over real sockets; see README.md."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from .server import LoopbackHub

__all__ = ["ANN", "ANN_READ", "BOB", "LoopbackHub", "start_for_session"]

ANN, ANN_READ, BOB = "hf_ann_write", "hf_ann_read", "hf_bob_write"


def start_for_session() -> LoopbackHub:
    """Starts the Hub of a process of tests and points the client at it, by the variables that the client reads once.

    To be called before anything imports huggingface_hub. Nothing then reaches the real Hub, nor the cache or the
    token of whoever runs the tests.
    """
    hub = LoopbackHub()
    home = tempfile.mkdtemp(prefix="glintru-hub-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    atexit.register(hub.close)
    for name in (
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_MODULES_CACHE",
        "HF_DATASETS_CACHE",
    ):
        os.environ.pop(name, None)
    os.environ |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": home,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        "NO_PROXY": "127.0.0.1",
    }
    return hub
