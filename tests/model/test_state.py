"""The streaming identity: however a history is cut, the numbers are those of one pass."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_glintru import GlintRUError, GlintRUModel, GlintRUState
from modeling_glintru.models.auto import MODELS

from .helpers import random_history, small_config, small_model
from .test_identity import PARTS, STATE_SPACE, random_case
from .test_padding import padded

EXACT = {"rtol": 0, "atol": 1e-10}


def pieces(length: int, draw: random.Random) -> list[int]:
    """A random cut: lengths that sum to `length`, with zeros and ones among them."""
    cuts = sorted(draw.randint(0, length) for _ in range(draw.randint(0, 6)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True)]


def check(options: dict, batch: int, length: int, seed: int) -> None:
    """Every cut piece of a batch of equal lengths gives the rows of the full pass."""
    model, draw = small_model(seed, **options).double(), random.Random(seed)
    ids = random_history(batch, length, model.config.vocab_size, seed)
    full = model(ids, return_all_logits=True, output_hidden_states=True)
    state, start, size = None, 0, None
    for piece in pieces(length, draw):
        span = slice(start, start + piece)
        output = model(
            ids[:, span], state=state, use_cache=True, return_all_logits=True, output_hidden_states=bool(piece)
        )
        torch.testing.assert_close(output.last_hidden_state, full.last_hidden_state[:, span], **EXACT)
        torch.testing.assert_close(output.logits, full.logits[:, span], **EXACT)
        for ours, theirs in zip(output.hidden_states or (), full.hidden_states, strict=False):
            torch.testing.assert_close(ours, theirs[:, span], **EXACT)
        state, start = output.state, start + piece
        assert size is None or state.nbytes == size  # it never grows
        size = state.nbytes
        assert state.count.tolist() == [start] * batch
    torch.testing.assert_close(state.representation, full.last_hidden_state[:, -1], **EXACT)


@pytest.mark.parametrize("seed", range(12))
def test_random_cuts_of_random_models(seed):
    options, batch, length = random_case(seed)
    check(options, batch, length, seed)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_switched_off(part, layers):
    check({part: False, "num_hidden_layers": layers}, 2, 12, seed=layers)


def test_only_the_attention_or_a_plain_gru():
    check({"use_gru": False, "use_block_gate": False, "use_gated_mlp": False}, 2, 12, 1)
    check({"use_linear_attention": False, "use_temporal_convolutions": False, "use_selective_gate": False}, 2, 12, 1)


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("options", [{}, {"use_gru": False}, {"num_hidden_layers": 3}], ids=str)
def test_moving_average(options, decay):
    for seed in range(3):
        check({"average_share": 0.4, "average_decay": decay, **options}, 2, 40, seed)


@pytest.mark.parametrize("options", [{}, {"num_hidden_layers": 2, "average_share": 0.4}], ids=str)
def test_state_space(options):
    for seed in range(3):
        check({**STATE_SPACE, **options}, 2, 40, seed)


@pytest.mark.parametrize("options", [{}, {"average_share": 0.4}, STATE_SPACE], ids=str)
def test_one_item_at_a_time(options):
    model = small_model(num_hidden_layers=2, **options).double()
    ids = random_history(3, 9)
    state = model.model.empty_state(3)
    for t in range(9):
        output = model(ids[:, t : t + 1], state=state)
        torch.testing.assert_close(output.logits, model(ids[:, : t + 1]).logits, **EXACT)
        state = output.state


@pytest.mark.parametrize("side", ["left", "right", "gaps"])
@pytest.mark.parametrize("options", [{}, {"num_hidden_layers": 2}, STATE_SPACE], ids=str)
def test_ragged_calls(side, options):
    """Users at different lengths, a different number of new items each, some without any."""
    torch.manual_seed(0)
    model, draw = small_model(**options).double(), random.Random(0)
    histories = [random_history(1, n, seed=n)[0] for n in (1, 2, 7, 40, 25)]
    state, done = model.model.empty_state(5), [0] * 5
    while any(n < len(h) for n, h in zip(done, histories, strict=True)):
        take = [draw.choice([0, 0, 1, 2, 9]) for _ in histories]
        new = [h[n : n + k] for h, n, k in zip(histories, done, take, strict=True)]
        ids = padded(new, side, max(1, *map(len, new)) + 2)
        output, before = model(ids, state=state), state
        state = output.state
        for row, (history, items) in enumerate(zip(histories, new, strict=True)):
            start, end = done[row], done[row] + len(items)
            done[row] = end
            if end:
                alone = model(history[None, :end])
                torch.testing.assert_close(output.logits[row], alone.logits[0], **EXACT)
                hidden = output.last_hidden_state[row]
                torch.testing.assert_close(hidden[ids[row] != 0], alone.last_hidden_state[0, start:], **EXACT)
                assert not hidden[ids[row] == 0].any()
            if not len(items):
                assert state.select([row]).to_bytes() == before.select([row]).to_bytes()
        assert state.count.tolist() == done


def test_the_first_call_of_a_ragged_batch():
    model = small_model().double()
    ids = padded([random_history(1, n, seed=n)[0] for n in (5, 0, 3)], "left", 7)
    output = model(ids, use_cache=True)
    torch.testing.assert_close(output.logits, model(ids).logits, **EXACT)
    again = model(random_history(3, 2), state=output.state)
    torch.testing.assert_close(again.logits, model(torch.cat((ids, random_history(3, 2)), dim=1)).logits, **EXACT)


def test_masks_and_embeddings_go_on_too():
    model = small_model().double()
    ids, mask = random_history(2, 8), torch.ones(2, 8, dtype=torch.long)
    mask[0, 5] = 0
    state = model(ids[:, :4], use_cache=True).state
    output = model(ids[:, 4:], attention_mask=mask[:, 4:], state=state)
    torch.testing.assert_close(output.logits, model(ids, attention_mask=mask).logits, **EXACT)
    embeds = model.model.embed_items(ids[:, 4:])
    output = model(inputs_embeds=embeds, attention_mask=mask[:, 4:], state=state)
    torch.testing.assert_close(output.logits, model(ids, attention_mask=mask).logits, **EXACT)


def test_float32_and_the_compiled_kernels():
    """The first call starts from nothing and uses the kernels; heads of 16 as they want them."""
    model = small_model(hidden_size=64, num_attention_heads=4, num_hidden_layers=2)
    ids = random_history(4, 50)
    state = model(ids[:, :30], use_cache=True).state
    output = model(ids[:, 30:], state=state)
    torch.testing.assert_close(output.logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(ids[:, 30:], state=model(ids[:, :30], use_cache=True).state)
    assert rough.state.dtype == torch.float32
    torch.testing.assert_close(rough.last_hidden_state.float(), output.last_hidden_state, rtol=0, atol=0.2)


def test_what_is_returned():
    model = small_model()
    ids = random_history(2, 3)
    assert model(ids).state is None and "state" not in model(ids)
    state = model(ids, use_cache=True).state
    assert isinstance(state, GlintRUState) and len(state) == 2
    assert model(ids, state=state).state is not None
    assert model(ids, state=state, use_cache=False).state is None
    assert model.model(ids, state=state, use_cache=False).state is None
    assert model(ids, state=state, return_dict=False)[-1].count.tolist() == [6, 6]
    assert sum(state.select([0]).tensors[name].numel() for name in state.tensors) == 4 * 16 + 16 * 16 // 4
    empty = torch.zeros(2, 0, dtype=torch.long)
    torch.testing.assert_close(model(empty, state=state).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.fixture
def model():
    return small_model(num_hidden_layers=2)


@pytest.fixture
def state(model):
    ids = padded([random_history(1, n, seed=n)[0] for n in (4, 1, 6)], "right", 6)
    return model(ids, use_cache=True).state


def assert_equal(a: GlintRUState, b: GlintRUState) -> None:
    assert a.layout == b.layout and a.fingerprint == b.fingerprint and a.tensors.keys() == b.tensors.keys()
    assert torch.equal(a.count, b.count)
    for name, tensor in a.tensors.items():
        assert tensor.dtype == b.tensors[name].dtype and torch.equal(tensor, b.tensors[name])


def test_select_and_merge(model, state):
    assert state.select(torch.tensor([2, 0])).count.tolist() == [6, 4]
    assert state.select([-1]).count.tolist() == [6]
    assert len(state.select([])) == 0
    assert_equal(GlintRUState.merge([state.select([0]), state.select([1, 2])]), state)
    next_items = random_history(3, 2)
    whole = model(next_items, state=state)
    part = model(next_items[1:2], state=state.select([1]))
    torch.testing.assert_close(part.logits, whole.logits[1:2])


def test_files_and_bytes(model, state, tmp_path):
    for kept in (state, state.to(torch.float16), state.to(dtype=torch.bfloat16), state.to("cpu", torch.float64)):
        kept.save(tmp_path / "states.safetensors")
        assert_equal(GlintRUState.load(tmp_path / "states.safetensors"), kept)
        blobs = kept.to_bytes()
        assert len(blobs) == 3 and len({len(blob) for blob in blobs}) == 1
        assert_equal(GlintRUState.from_bytes(blobs), kept)
        assert_equal(GlintRUState.from_bytes(blobs[1]), kept.select([1]))
    assert model(random_history(3, 1), state=GlintRUState.from_bytes(state.to_bytes())).state.count[0] == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_forms(model, state, dtype):
    half = state.to(dtype)
    assert half.nbytes < 0.6 * state.nbytes
    ids = random_history(3, 2)
    output, exact = model(ids, state=half), model(ids, state=state)
    assert output.state.dtype == dtype and output.state.nbytes == half.nbytes
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.last_hidden_state, exact.last_hidden_state, rtol=0, atol=0.1)


def test_a_sum_too_large_for_float16(state):
    state.tensors["layers.0.attention"].fill_(1e5)
    with pytest.raises(GlintRUError, match=r"layers\.0\.attention .* use bfloat16"):
        state.to(torch.float16)


def test_other_weights_are_refused(model, state):
    ids = random_history(3, 1)
    fingerprint = model.model.fingerprint()
    assert state.fingerprint == fingerprint == small_model(num_hidden_layers=2).model.fingerprint()
    with pytest.raises(GlintRUError, match="other weights"):
        small_model(seed=1, num_hidden_layers=2)(ids, state=state)
    with torch.no_grad():
        model.model.embed_items.weight[5] += 1  # the cached fingerprint notices
    with pytest.raises(GlintRUError, match="rebuild it from the history"):
        model(ids, state=GlintRUState.from_bytes(state.to_bytes()))


def test_a_state_of_another_moving_average_is_refused():
    ids, slow, fast = random_history(2, 5), small_model(average_share=0.4), small_model(average_share=0.4)
    fast.config.average_decay = 0.5
    state = slow(ids, use_cache=True).state
    again = GlintRUState.from_bytes(state.to_bytes())
    assert again.layout == state.layout and again.tensors["layers.0.average"].shape == (2, 16)
    assert torch.equal(slow(ids, state=again).logits, slow(ids, state=state).logits)
    with pytest.raises(GlintRUError, match="other weights"):
        fast(ids, state=state)
    with pytest.raises(GlintRUError, match="average True, not False"):
        small_model()(ids, state=state)


def test_the_state_of_a_state_space_is_kept():
    ids, model = random_history(2, 5), small_model(**STATE_SPACE)
    state = model(ids, use_cache=True).state
    again = GlintRUState.from_bytes(state.to_bytes())
    assert again.layout == state.layout and again.tensors["layers.0.space"].shape == (2, 32, 16)
    assert torch.equal(model(ids, state=again).logits, model(ids, state=state).logits)
    with pytest.raises(GlintRUError, match="state_space True, not False"):
        small_model()(ids, state=state)


def test_states_from_before_the_moving_average_are_still_read():
    """A model without one has the fingerprint that it had before there was one."""
    model = GlintRUModel(small_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    assert model.fingerprint() == "0902fda2a94a5279"


def test_the_fingerprint_survives_saving_and_widening(model, state, tmp_path):
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    ids = random_history(3, 1)
    torch.testing.assert_close(again(ids, state=state).logits, model(ids, state=state).logits)
    wide = again.double()(ids, state=state)
    assert wide.state.dtype == torch.float32 and wide.logits.dtype == torch.float64


def test_errors(model, state, tmp_path):
    ids = random_history(3, 1)
    with pytest.raises(GlintRUError, match="holds 3 users but the batch has 2 rows"):
        model(ids[:2], state=state)
    with pytest.raises(GlintRUError, match="num_layers 2, not 1"):
        small_model()(ids, state=state)
    with pytest.raises(GlintRUError, match="attention True, not False"):
        small_model(num_hidden_layers=2, use_linear_attention=False)(ids, state=state)
    with pytest.raises(GlintRUError, match="must be a GlintRUState, got dict"):
        model(ids, state={})
    with pytest.raises(GlintRUError, match="the state is on meta"):
        model(ids, state=state.to("meta"))
    with pytest.raises(GlintRUError, match="index 3 is out of range"):
        state.select([0, 3])
    with pytest.raises(GlintRUError, match="integers"):
        state.select([0.5])
    with pytest.raises(GlintRUError, match="at least one"):
        GlintRUState.merge([])
    with pytest.raises(GlintRUError, match="different dtype"):
        GlintRUState.merge([state, state.to(torch.float16)])
    with pytest.raises(GlintRUError, match="dtype must be"):
        state.to(torch.int8)
    with pytest.raises(GlintRUError, match="cannot be written"):
        state.save(tmp_path / "missing" / "file")


def test_a_state_and_its_layout_are_never_changed(state):
    for value, name in ((state, "count"), (state.layout, "num_layers")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_damaged_bytes(state):
    blob, other, _ = state.to_bytes()
    altered = bytearray(blob)
    altered[-3] ^= 1
    for wrong, sentence in [
        (b"", "not a state"),
        (b"something else entirely, and long enough", "not a state"),
        (blob[:20], "cut short"),
        (blob[:-1], "cut short or altered"),
        (bytes(altered), "cut short or altered"),
        (blob[:4] + b"\x09" + blob[5:], "version 9"),
        ([other, state.to(torch.float16).to_bytes()[0]], "state 1 is of other weights"),
        ([], "at least one"),
    ]:
        with pytest.raises(GlintRUError, match=sentence):
            GlintRUState.from_bytes(wrong)


def test_damaged_files(state, tmp_path):
    file = tmp_path / "states"
    with pytest.raises(GlintRUError, match="no state can be read"):
        GlintRUState.load(file)
    file.write_bytes(b"nonsense")
    with pytest.raises(GlintRUError, match="no state can be read"):
        GlintRUState.load(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(GlintRUError, match="not a file of GLINT-RU states"):
        GlintRUState.load(file)
    state.save(file)
    tensors = load_file(file)
    facts = {"format": "glintru-state", "version": "1", "fingerprint": state.fingerprint, "layout": "{}"}
    save_file(tensors, file, facts)
    with pytest.raises(GlintRUError, match="damaged"):
        GlintRUState.load(file)
    save_file(tensors, file, {**facts, "version": "7"})
    with pytest.raises(GlintRUError, match="version 7"):
        GlintRUState.load(file)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_truncated_back_propagation(checkpointing):
    """A training step goes on from a state of older weights; its gradients stop at the border."""
    model = small_model(num_hidden_layers=2, embedding_dropout=0, attention_dropout=0, hidden_dropout=0).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = random_history(2, 12)
    state = None
    for start in range(0, 9, 3):
        span, target = ids[:, start : start + 3], ids[:, start + 1 : start + 4]
        output = model(span, labels=target, state=state, use_cache=True)
        assert output.logits is None
        output.loss.backward()
        optimizer.step()
        state = output.state
        assert not any(tensor.requires_grad for tensor in state.tensors.values())
    with pytest.raises(GlintRUError, match=r"model\.eval\(\)"):
        state.to_bytes()
    with pytest.raises(GlintRUError, match=r"model\.eval\(\)"):
        state.save("nowhere")


def test_a_training_step_reads_a_state_of_inference_mode():
    model = small_model()
    ids = random_history(2, 6)
    with torch.inference_mode():
        state = model(ids, use_cache=True).state
    model.train()(ids, labels=ids.roll(-1, 1), state=state).loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_keep_a_float32_state(dtype):
    model = small_model(num_hidden_layers=2).to(dtype)
    ids = random_history(2, 8)
    state = model(ids[:, :5], use_cache=True).state
    assert state.dtype == torch.float32
    hidden = model(padded(list(ids[:, 5:]), "left", 5), state=state).last_hidden_state
    assert hidden.dtype == dtype
    torch.testing.assert_close(hidden[:, 2:], model(ids).last_hidden_state[:, 5:], rtol=0, atol=0.15)


def test_gradients_inside_a_call_are_those_of_the_full_pass():
    model = small_model(num_hidden_layers=2).double()
    ids = random_history(2, 6)
    losses = [model(ids, labels=ids.roll(-1, 1), use_cache=cache).loss for cache in (False, True)]
    plain, cached = (torch.autograd.grad(loss, list(model.parameters())) for loss in losses)
    for a, b in zip(plain, cached, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_models_without_a_state_say_so():
    sasrec = MODELS["sasrec"]
    model = sasrec(sasrec.config_class(vocab_size=31, hidden_size=16, num_attention_heads=2))
    with pytest.raises(GlintRUError, match="no streaming state"):
        model(random_history(1, 3), use_cache=True)


def test_the_encoder_alone():
    model = GlintRUModel(small_config()).double().eval()
    ids = random_history(2, 5)
    state = model(ids[:, :3], use_cache=True).state
    full = model(ids).last_hidden_state
    torch.testing.assert_close(model(ids[:, 3:], state=state).last_hidden_state, full[:, 3:], **EXACT)
