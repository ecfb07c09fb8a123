"""BERT4Rec (Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer", CIKM 2019) behind the shared head.

A bidirectional Transformer with norms behind its sublayers. A history is represented by what stands at a [mask] that
follows it: norm(GELU(W h + b)), as in the authors' code (the paper has no norm there). It is trained by the cloze
task: items of a window are replaced by [mask] and asked for, and some windows hide only their last item, which is what
recommending asks.

Departs from the paper: no bias for each item in the scores, since the head is shared by all models; the [mask] is a
vector beside the item embeddings, so it is never recommended; positions are counted from the newest item; which items
are masked is drawn anew in every step, not ten times before training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_glintru import GlintRUError, NextItemConfig, above_zero, at_least_one, heads_divide, rates
from .head_glintru import SequentialRecommendationOutput, check_indices, is_last_item, item_mask
from .layers_baselines import FeedForward, SelfAttention, at_least_zero
from .ops_glintru import Dropout
from .whole_history_baselines import WholeHistoryEncoder, WholeHistoryHead

__all__ = ["BERT4RecConfig", "BERT4RecForSequentialRecommendation", "BERT4RecModel"]


@strict
class BERT4RecConfig(NextItemConfig):
    """Sizes of BERT4Rec; shared fields as in `GlintRUConfig`.

    Args:
        num_attention_heads: Heads; divides `hidden_size`.
        num_hidden_layers: Blocks [L].
        intermediate_size: Inner width of the feed-forward network; the paper has 4 * `hidden_size`, which 0 means.
        max_position_embeddings: Longest history, without the [mask] behind it.
        mask_probability: Share of the items of a window that are masked [rho], at least one item.
        last_only_probability: Share of the windows in which the last item alone is masked.
        hidden_dropout: Dropout on embeddings and on the output of each sublayer.
        attention_dropout: Dropout on the attention weights.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "bert4rec"

    num_attention_heads: int = 2
    num_hidden_layers: int = 2
    intermediate_size: int = 0
    max_position_embeddings: int = 200
    mask_probability: float | int = 0.2
    last_only_probability: float | int = 0.1
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    layer_norm_eps: float | int = 1e-12

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_attention_heads", "num_hidden_layers", "max_position_embeddings")
        heads_divide(self)
        at_least_zero(self, "intermediate_size")
        rates(self, "mask_probability", "last_only_probability", "hidden_dropout", "attention_dropout")
        above_zero(self, "layer_norm_eps")


class BERT4RecBlock(nn.Module):
    """One attention and one feed-forward network."""

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__()
        size, dropout, eps = config.hidden_size, config.hidden_dropout, config.layer_norm_eps
        self.attention = SelfAttention(size, config.num_attention_heads, dropout, eps, config.attention_dropout)
        self.mlp = FeedForward(size, config.intermediate_size or 4 * size, dropout, eps)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        return self.mlp(self.attention(x, visible))


class BERT4RecPreTrainedModel(PreTrainedModel):
    config: BERT4RecConfig
    config_class = BERT4RecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["BERT4RecBlock"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Normal with 0.02, cut at two deviations, as in the authors' code; zero biases."""
        super()._init_weights(module)
        if isinstance(module, (nn.Embedding, nn.Linear)):
            init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        elif isinstance(module, BERT4RecModel):
            init.trunc_normal_(module.mask_embedding, std=0.02, a=-0.04, b=0.04)


class BERT4RecModel(WholeHistoryEncoder, BERT4RecPreTrainedModel):
    """Item and position embeddings, their norm, the blocks, and the layer that the scores are made from."""

    fixed_canvas = False

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.embed_items = nn.Embedding(config.vocab_size, size, padding_idx=0)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 1, size)  # one for the [mask] at the end
        self.mask_embedding = nn.Parameter(torch.zeros(size))
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(BERT4RecBlock(config) for _ in range(config.num_hidden_layers))
        self.out_proj = nn.Linear(size, size)
        self.out_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.post_init()

    def bidirectional(self, embeds: Tensor, items: Tensor) -> list[Tensor]:
        """The normalised embeddings, and the output of every block, the last one through the output layer.

        Args:
            embeds: (batch, length, hidden_size) of items and [mask]s, with padding anywhere.
            items: (batch, length) bool, false at padding.
        """
        from_newest = items.flip(1).cumsum(1).flip(1).clamp_min(1)
        positions = self.embed_positions.num_embeddings - from_newest
        states = [self.dropout(self.norm(embeds + self.embed_positions(positions)))]
        # A row without any item would have no key: it sees everything, and is thrown away.
        visible = (items | ~items.any(1, keepdim=True))[:, None, None]
        for layer in self.layers:
            states.append(layer(states[-1], visible))
        states[-1] = self.out_norm(F.gelu(self.out_proj(states[-1])))
        return states

    def encode_canvas(self, embeds: Tensor, items: Tensor) -> list[Tensor]:
        """The hidden states with a [mask] after the newest item."""
        mask = self.mask_embedding.to(embeds.dtype).expand(embeds.shape[0], 1, -1)
        return self.bidirectional(torch.cat([embeds, mask], 1), F.pad(items, (0, 1), value=True))

    def cloze(self, items: Tensor, masked: Tensor) -> Tensor:
        """The representations at every place of (batch, length) items, of which the masked ones cannot be seen."""
        embeds = torch.where(masked[..., None], self.mask_embedding, self.embed_items(items))
        return self.bidirectional(embeds, items != 0)[-1]


def draw_masked(items: Tensor, probability: float, last_only_probability: float) -> Tensor:
    """Which of (batch, length) items the cloze task hides: bool, at least one in each row that has items."""
    present = items != 0
    wanted = (present.sum(1, keepdim=True) * probability).round().clamp_min(1)
    ranks = torch.rand(items.shape, device=items.device).masked_fill(~present, 2).argsort(1).argsort(1)
    last_only = torch.rand(items.shape[0], 1, device=items.device) < last_only_probability
    return torch.where(last_only, is_last_item(present), (ranks < wanted) & present)


class BERT4RecForSequentialRecommendation(WholeHistoryHead, BERT4RecPreTrainedModel):
    """BERT4Rec with scores for every item."""

    training_examples = "windows"
    takes_time_gaps = False  # the time to a masked item says nothing of its place in the row
    # The loss is a mean over the masked items, whose number the Trainer does not know.
    accepts_loss_kwargs = False

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__(config)
        self.model = BERT4RecModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        exclude_item_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_all_logits: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: bool | None,
    ) -> SequentialRecommendationOutput:
        """As `NextItemHead`, but in training mode with `labels` the loss is that of the cloze task and all there is.

        The window is the row's items and, after them, the label of the last one; other labels are not read.

        Raises:
            GlintRUError: As `NextItemHead`, or training from `inputs_embeds`.
        """
        if labels is None or not self.training:
            return super().forward(
                input_ids,
                attention_mask,
                labels,
                exclude_item_ids,
                inputs_embeds,
                output_hidden_states,
                return_all_logits,
                num_items_in_batch,
                **kwargs,
            )
        if input_ids is None or labels.shape != input_ids.shape:
            raise GlintRUError("BERT4Rec is trained on input_ids and labels of the same shape")
        window = self._window(input_ids, attention_mask, labels)
        masked = draw_masked(window, self.config.mask_probability, self.config.last_only_probability)
        hidden = self.model.cloze(window, masked)
        targets = window[masked]
        passes = [hidden[masked]]
        for _ in range(1, self.num_passes):
            passes.append(self.model.cloze(window, masked)[masked])
        seen = None
        if self.training_loss is not None and self.training_loss.wants_seen_items:
            # Here these are all items of the row that are not masked.
            row = masked.nonzero(as_tuple=True)[0]
            seen = torch.where(((window != 0) & ~masked)[row], window[row], targets[:, None])
        loss = self._summed_loss(passes, targets, seen) / max(1, targets.numel())
        return SequentialRecommendationOutput(loss=loss)

    def _window(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
        """(batch, length + 1): the items, and right after the last one its label."""
        check_indices("input_ids", input_ids, self.config.vocab_size)
        present = item_mask(input_ids, attention_mask, input_ids[..., None])
        last = is_last_item(present)
        following = labels.masked_fill(~last | (labels == -100), 0)
        check_indices("labels", following, self.config.vocab_size)
        return F.pad(input_ids * present, (0, 1)) + F.pad(following, (1, 0))
