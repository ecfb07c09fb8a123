"""States of a stranger, with right checksums: refused in one sentence, or used; nothing else."""

from __future__ import annotations

import os
import random
import sys
import zlib

import numpy as np
import pytest
import torch

from modeling_glintru import GlintRUProcessor
from modeling_glintru.errors import GlintRUError, StateError
from modeling_glintru.hub import handler
from modeling_glintru.hub.handler import EndpointHandler
from modeling_glintru.models.state_glintru import CHECKSUM, COUNT, HEADER, GlintRUState
from modeling_glintru.serving import StreamingRecommender
from modeling_glintru.serving.store import Replacement

from ..model.helpers import small_model

ITEMS = [f"item-{number:02d}" for number in range(30)]
TRIES = int(os.environ.get("GLINTRU_ATTACK_TRIES", "400"))


def sealed(header: bytes, body: bytes) -> bytes:
    """The bytes of a state with a checksum that is right."""
    return header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def state(model) -> bytes:
    with torch.inference_mode():
        return model(torch.tensor([[1, 2, 3]]), use_cache=True).state.to_bytes()[0]


def test_mutated_states(model, state):
    """Headers and bodies are changed at random, and the checksum made right again."""
    draw = random.Random(0)
    header, body = state[: HEADER.size], state[HEADER.size + CHECKSUM.size :]
    with torch.inference_mode():
        expected = model(torch.tensor([[4]]), state=GlintRUState.from_bytes(state)).logits
    used = 0
    for _ in range(TRIES):
        changed, rest = bytearray(header), bytearray(body)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(5, len(changed))] = draw.randrange(256)
        if draw.random() < 0.5:
            rest = rest[: draw.randrange(len(rest))] if draw.random() < 0.5 else rest + bytes(draw.randrange(64))
        if draw.random() < 0.2:
            changed = bytearray(header)
        try:
            found = GlintRUState.from_bytes(sealed(bytes(changed), bytes(rest)))
            with torch.inference_mode():
                logits = model(torch.tensor([[4]]), state=found).logits
        except GlintRUError as error:
            assert len(str(error)) < 300
        else:
            assert logits.shape == expected.shape and logits[:, 1:].isfinite().all()
            used += 1
    assert used < TRIES / 2


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(model, state, number, tmp_path):
    numbers = np.frombuffer(state[HEADER.size + CHECKSUM.size :], np.float32).copy()
    numbers[3] = number
    blob = sealed(state[: HEADER.size], numbers.tobytes())
    with pytest.raises(GlintRUError, match="numbers that are not finite"):
        GlintRUState.from_bytes(blob)
    with StreamingRecommender(model, GlintRUProcessor(ITEMS), tmp_path / "users.db") as recommender:
        recommender.observe_many([("a", item) for item in ITEMS[:3]])
        (record,) = recommender.store.read(["a"], recommender.step.fingerprint)
        assert recommender.store.replace([Replacement(record, 3, blob)], recommender.step.fingerprint) == [True]
        with pytest.raises(StateError, match=r"user 'a' cannot be used: it holds numbers that are not finite; rebuild"):
            recommender.recommend("a")
        recommender.rebuild("a")
        assert len(recommender.recommend("a").items) == 10


def test_states_that_do_not_go_together(state):
    """Right by themselves: of other weights and equal length, and longer or shorter than the first."""
    header, body = state[: HEADER.size], state[HEADER.size + CHECKSUM.size :]
    with torch.inference_mode():
        other = small_model(seed=1)(torch.tensor([[1, 2, 3]]), use_cache=True).state.to_bytes()[0]
    assert len(other) == len(state)
    assert len(GlintRUState.from_bytes([state, state])) == 2
    for second in (other, sealed(header, body[:-4]), sealed(header, body + bytes(4))):
        with pytest.raises(GlintRUError, match="state 1 is of other weights, sizes or dtype than the first one"):
            GlintRUState.from_bytes([state, second])


def test_a_count_that_nobody_has(state):
    header = state[: HEADER.size - COUNT.size] + COUNT.pack(2**64 - 1)
    with pytest.raises(GlintRUError, match="a history that nobody has"):
        GlintRUState.from_bytes(sealed(header, state[HEADER.size + CHECKSUM.size :]))


# ---------------------------------------------------------------------- the memory of an endpoint


def size_of(user: handler.User) -> int:
    return sum(map(sys.getsizeof, [user.state, user.seen, user.events, *user.seen, *user.events]))


def test_the_memory_of_a_user_is_bounded(tmp_path):
    small_model(vocab_size=31).save_pretrained(tmp_path)
    GlintRUProcessor(ITEMS).save_pretrained(tmp_path)
    endpoint = EndpointHandler(str(tmp_path))
    sizes = []
    for start in range(0, 1200, 300):
        events = [{"item": ITEMS[n % 30], "id": f"event-{n}"} for n in range(start, start + 300)]
        strange = [{"item": f"strange-{n}", "id": f"strange-{n}"} for n in range(start, start + 50)]
        request = {"inputs": {"user": "a", "events": [*strange, *events]}, "parameters": {"unknown_items": "drop"}}
        endpoint(request)
        sizes.append(size_of(endpoint.users["a"]))
    assert max(sizes) < 1.02 * sizes[0]  # ids get longer by a digit
    assert len(endpoint.users["a"].seen) == 30 and len(endpoint.users["a"].events) == handler.MAX_EVENTS
