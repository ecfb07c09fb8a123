"""What transformers checks on its own models, written for this one."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel

from modeling_glintru import (
    AutoModelForSequentialRecommendation,
    GlintRUConfig,
    GlintRUForSequentialRecommendation,
    GlintRUModel,
)

from .helpers import gradients, random_history, small_config, small_model

IDS = random_history(3, 9)


@pytest.fixture
def model():
    return small_model(num_hidden_layers=2)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_save_and_load(model, tmp_path):
    model.save_pretrained(tmp_path)
    names = sorted(f.name for f in tmp_path.iterdir() if f.suffix != ".py")
    assert names == ["config.json", "manifest.json", "model.safetensors"]
    for auto in (GlintRUForSequentialRecommendation, AutoModel, AutoModelForSequentialRecommendation):
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is GlintRUForSequentialRecommendation
        assert not loaded.training
        assert same_weights(loaded, model)
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_the_item_embedding_is_stored_once(model, tmp_path):
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        rows = [name for name in file.keys() if 31 in file.get_slice(name).get_shape()]  # noqa: SIM118
    assert rows == ["model.embed_items.weight"]


def test_the_bare_model_loads_from_the_recommenders_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    bare = GlintRUModel.from_pretrained(tmp_path)
    assert torch.equal(bare(IDS).last_hidden_state, model(IDS).last_hidden_state)
    bare.save_pretrained(tmp_path / "bare")
    loaded = GlintRUForSequentialRecommendation.from_pretrained(tmp_path / "bare")
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_missing_weights_are_initialised_as_published(model, tmp_path):
    """Loading builds the model on the meta device: what the file lacks must not stay empty."""
    state = {k: v for k, v in model.state_dict().items() if "layers.1" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, info = GlintRUForSequentialRecommendation.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] and all("layers.1" in key for key in info["missing_keys"])
    block = loaded.model.layers[1]
    assert torch.equal(block.mixing_logits, torch.full((2,), 0.5))
    assert torch.equal(block.norm.weight, torch.ones(16))
    assert block.recurrence.conv_in.weight.std() > 0.01
    assert torch.isfinite(loaded(IDS).logits).all(dim=0)[1:].all()
    assert torch.equal(loaded.model.layers[0].mix_proj.weight, model.model.layers[0].mix_proj.weight)


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=2001, hidden_size=64, num_attention_heads=4))
    embedding = model.model.embed_items.weight
    assert torch.equal(embedding[0], torch.zeros(64))
    assert embedding[1:].std().item() == pytest.approx((2 / (2001 + 64)) ** 0.5, rel=0.03)  # Xavier normal
    block = model.model.layers[0]
    for weight in (block.mix_proj.weight, block.attention.q_proj.weight, block.mlp.out_proj.weight):
        bound = (6 / 128) ** 0.5  # Xavier uniform
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.02) and weight.abs().max() <= bound
    for weight in (block.recurrence.gru.weight_ih_l0, block.recurrence.gru.weight_hh_l0):
        bound = (6 / (3 * 64 + 64)) ** 0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.02) and weight.abs().max() <= bound
    for linear in (block.gate_proj, block.recurrence.gate[0], block.attention.o_proj):
        assert torch.equal(linear.bias, torch.zeros_like(linear.bias))
    bound = (1 / (3 * 64)) ** 0.5  # PyTorch's default for convolutions
    for tensor in (block.recurrence.conv_in.weight, block.recurrence.conv_out.bias):
        assert tensor.abs().max() <= bound and tensor.abs().max() > 0.9 * bound
    assert torch.equal(block.mixing_logits, torch.full((2,), 0.5))


def test_the_same_seed_gives_the_same_model():
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(GlintRUForSequentialRecommendation(small_config()))
    assert same_weights(*models)


def test_evaluation_is_deterministic_and_dropout_is_not(model):
    assert torch.equal(model(IDS).logits, model(IDS).logits)
    model.train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)


def test_dropout_stands_at_the_published_places():
    rates = {"embedding_dropout": 0.11, "attention_dropout": 0.22, "hidden_dropout": 0.33}
    model = small_model(average_share=0.4, state_space_share=0.4, **rates)
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {
        "model.dropout": 0.11,
        "model.layers.0.attention.dropout": 0.22,
        "model.layers.0.recurrence.dropout": 0.33,
        "model.layers.0.dropout": 0.33,
        "model.layers.0.average.dropout": 0.33,
        "model.layers.0.state_space.dropout": 0.33,
    }


def test_gradient_checkpointing_changes_no_gradient(model):
    plain = gradients(model(IDS, labels=IDS).loss, model)
    model.gradient_checkpointing_enable()
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert model.is_gradient_checkpointing
    calls = []
    model.model.layers[0].mix_proj.register_forward_hook(lambda *_: calls.append(1))
    model(IDS, labels=IDS).loss.backward()
    assert len(calls) == 2  # once forward, once more in the backward pass
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], msg=name)


def test_resize_of_the_embedding(model):
    with torch.no_grad():
        before = model(IDS).logits
    model.resize_token_embeddings(40)
    assert model.config.vocab_size == 40 and model.model.config.vocab_size == 40
    after = model(IDS).logits
    assert after.shape == (3, 40)
    torch.testing.assert_close(after[:, :31], before)
    model(torch.tensor([[39]]), labels=torch.tensor([[38]])).loss.backward()


def test_input_embeddings_can_be_swapped(model):
    embedding = torch.nn.Embedding(31, 16, padding_idx=0)
    model.set_input_embeddings(embedding)
    assert model.get_input_embeddings() is embedding and model.model.get_input_embeddings() is embedding


def test_embeddings_as_input(model):
    embeds = model.get_input_embeddings()(IDS)
    torch.testing.assert_close(model(inputs_embeds=embeds).logits, model(IDS).logits)
    mask = torch.ones_like(IDS)
    mask[:, 6:] = 0
    torch.testing.assert_close(model(inputs_embeds=embeds, attention_mask=mask).logits, model(IDS[:, :6]).logits)


def test_outputs(model):
    output = model(IDS, labels=IDS, output_hidden_states=True)
    assert list(output.keys()) == ["loss", "logits", "last_hidden_state", "hidden_states"]
    assert output.logits.shape == (3, 31) and output.last_hidden_state.shape == (3, 9, 16)
    assert len(output.hidden_states) == 3
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    as_tuple = model(IDS, labels=IDS, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[1], output.logits)
    every = model(IDS, return_all_logits=True).logits
    assert every.shape == (3, 9, 31)
    torch.testing.assert_close(every[:, -1], output.logits)


def test_padding_and_excluded_items_never_rank(model):
    exclude = torch.tensor([[3, 4], [30, 0], [0, 0]])
    for all_logits in (False, True):
        logits = model(IDS, exclude_item_ids=exclude, return_all_logits=all_logits).logits
        gone = torch.isneginf(logits if logits.dim() == 2 else logits[:, -1])
        assert [row.nonzero().flatten().tolist() for row in gone] == [[0, 3, 4], [0, 30], [0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(model, tmp_path, dtype):
    reference = model(IDS).logits
    model.save_pretrained(tmp_path)
    loaded = GlintRUForSequentialRecommendation.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype
    for half in (loaded, copy.deepcopy(model).to(dtype)):
        logits = half(IDS, labels=IDS).logits
        assert logits.dtype == dtype
        torch.testing.assert_close(logits[:, 1:].float(), reference[:, 1:], rtol=0.1, atol=0.3)
    loaded.save_pretrained(tmp_path / "half")
    assert GlintRUForSequentialRecommendation.from_pretrained(tmp_path / "half", dtype="auto").dtype == dtype


def test_bf16_autocast_trains_float32_weights(model):
    with torch.autocast("cpu", torch.bfloat16):
        output = model(IDS, labels=IDS)
    assert output.logits.dtype == torch.float32  # scores in bf16 would tie
    torch.testing.assert_close(output.loss.float(), model(IDS, labels=IDS).loss, rtol=0.05, atol=0.05)
    grads = gradients(output.loss, model)
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in grads.values())


def test_a_model_on_the_meta_device(tmp_path):
    with torch.device("meta"):
        model = GlintRUForSequentialRecommendation(small_config())
    assert model(torch.ones(2, 3, dtype=torch.long, device="meta")).logits.shape == (2, 31)


@pytest.mark.slow
def test_torch_compile():
    """Scores from compiled kernels, and a training step through the captured graphs of both directions.

    The kernels of a training step would take another half minute to build.
    """
    model, padded = small_model(), IDS.clone()
    padded[0, 5:] = 0
    compiled = torch.compile(model)
    with torch.no_grad():
        torch.testing.assert_close(compiled(IDS).logits, model(IDS).logits)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager_decomp_partition")
    there, here = compiled(padded, labels=IDS).loss, model(padded, labels=IDS).loss
    torch.testing.assert_close(there, here)
    expected = gradients(here, model)
    for name, gradient in gradients(there, model).items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda(model):
    reference = model(IDS, labels=IDS)
    output = model.cuda()(IDS.cuda(), labels=IDS.cuda())
    torch.testing.assert_close(output.logits.cpu(), reference.logits, rtol=1e-3, atol=1e-3)
    model.train()(IDS.cuda(), labels=IDS.cuda()).loss.backward()  # cuDNN has no backward of a GRU in eval mode
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device on this machine")
def test_mps(model):
    reference = model(IDS, labels=IDS)
    output = model.to("mps")(IDS.to("mps"), labels=IDS.to("mps"))
    torch.testing.assert_close(output.logits.cpu(), reference.logits, rtol=1e-3, atol=1e-3)
    output.loss.backward()


def test_sharded_weights(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert same_weights(AutoModel.from_pretrained(tmp_path), model)
