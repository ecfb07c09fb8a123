"""An AdamW that touches only the rows of the item embedding that a step used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import GlintRUError

__all__ = ["LazyAdamW", "can_train_rows", "clip_grad_norm_"]


def can_train_rows(model: Any) -> bool:
    """Whether the loss of `model` reads only some rows of its item embedding: any but the full cross-entropy.

    Then `model.get_input_embeddings().sparse = True` gives that embedding sparse gradients, for `LazyAdamW`.
    """
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    loss = getattr(model, "training_loss", None)
    return isinstance(embedding, nn.Embedding) and loss is not None and not loss.reads_all_items


class LazyAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` that also takes sparse gradients, at the cost of the rows in them.

    Each row of such a parameter is an AdamW of its own whose clock ticks in the steps that use the row: moments, bias
    correction and weight decay advance then, and only then. A row that is in every step moves exactly as with AdamW; a
    row that is in none does not move at all, where AdamW would go on decaying it and following its old momentum.
    (`torch.optim.SparseAdam` counts all steps in the bias correction, which makes the first step of a rare row more
    than three times too long, and has no weight decay.) Parameters with dense gradients are AdamW's own affair.

    The state of a row-wise parameter has AdamW's names; its `step` counts for each row, (rows,) float32, and is taken
    on from a checkpoint of AdamW.

    Args:
        params, options: As `torch.optim.AdamW` has them, `fused` included.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; raises `GlintRUError` for a parameter whose gradients were sparse and now are dense."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        set_aside: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is None:
                    continue
                if grad.is_sparse:
                    self._step_rows(group, parameter, grad)
                    set_aside.append((parameter, grad))
                    parameter.grad = None
                elif self.state[parameter] and self.state[parameter]["step"].dim():
                    raise GlintRUError("a parameter has a dense gradient after sparse ones; LazyAdamW cannot go back")
        super().step()
        for parameter, grad in set_aside:
            parameter.grad = grad
        return loss

    def _step_rows(self, group: dict[str, Any], parameter: nn.Parameter, grad: Tensor) -> None:
        if group["amsgrad"] or group["maximize"]:
            raise GlintRUError("LazyAdamW knows neither amsgrad nor maximize for sparse gradients")
        state = self.state[parameter]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = torch.zeros(len(parameter), device=parameter.device)
        elif state["step"].dim() == 0:  # every row was in every step so far
            state["step"] = state["step"].to(parameter.device).repeat(len(parameter))
        grad = grad.coalesce()
        rows, values = grad.indices()[0], grad.values()
        # Blocks that stay in the cache of a CPU: 2,048 rows of 64 took a third less time than all at once.
        size = 2048 if rows.device.type == "cpu" else max(1, len(rows))
        for index, part in zip(rows.split(size), values.split(size), strict=True):
            _update(group, state, parameter, index, part.to(parameter.dtype))


def _update(group: dict[str, Any], state: dict[str, Tensor], parameter: Tensor, rows: Tensor, grad: Tensor) -> None:
    """AdamW's update of some distinct `rows`, (n,) int64, by their gradients (n, ...)."""
    rate, (beta1, beta2) = float(group["lr"]), group["betas"]
    step = state["step"].index_select(0, rows) + 1
    mean = state["exp_avg"].index_select(0, rows).lerp_(grad, 1 - beta1)
    square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    for name, value in (("step", step), ("exp_avg", mean), ("exp_avg_sq", square)):
        state[name].index_copy_(0, rows, value)
    shape = (-1, *[1] * (grad.dim() - 1))
    length, scale = (-rate / (1 - beta1**step)).view(shape), (1 - beta2**step).rsqrt_().view(shape)
    moved = parameter.index_select(0, rows).mul_(1 - rate * group["weight_decay"])
    moved.addcdiv_(mean.mul_(length), square.sqrt_().mul_(scale).add_(group["eps"]))
    parameter.index_copy_(0, rows, moved)


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_` for sparse gradients too, which torch 2.13 refuses.

    Args:
        parameters: Their gradients are scaled in place; sparse ones are coalesced.
        max_norm: Of all gradients together; infinite measures only.
        norm_type: 2 for the Euclidean norm.

    Returns:
        The norm before, a scalar.
    """
    grads = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            grads.append(parameter.grad._values())
        else:
            grads.append(parameter.grad)
    with torch.no_grad():
        total = torch.nn.utils.get_total_norm(grads, norm_type)
        if grads and max_norm < float("inf"):
            torch._foreach_mul_(grads, (max_norm / (total + 1e-6)).clamp(max=1.0))
    return total
