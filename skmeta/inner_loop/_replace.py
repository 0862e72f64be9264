"""Gradients beside those of the outer loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def replace_gradient(
    output: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    """Pass `output` on; in the backward pass give the parameters these gradients.

    For algorithms whose meta-gradient is no derivative of the outer loss, such as
    Reptile. The gradient that arrives for `output` is dropped, its scale included;
    those of the parameters go on to whatever the parameters were computed from.

    Parameters
    ----------
    output : Tensor
        Returned with the same values.
    parameters : sequence of Tensor
        What the gradients are for; leaves or not.
    gradients : sequence of Tensor
        One for each parameter, of its shape.

    Returns
    -------
    Tensor
    """
    output = output.detach()
    if not torch.is_grad_enabled():
        return output
    return _Replace.apply(output, len(parameters), *parameters, *gradients)


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, n: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[n:])
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return None, None, *gradients, *(None for _ in gradients)


def add_loss(output: Tensor, loss: Tensor, share: float = 1.0) -> Tensor:
    """Pass `output` on; in the backward pass `loss` is minimised along with it.

    For algorithms that know a second loss beside the outer one.

    Parameters
    ----------
    output : Tensor
        Returned with the same values; the gradient that arrives is scaled by `share`.
    loss : Tensor of shape ()
        Gets a gradient of one.
    share : float, default=1.0
        Weight of the outer loss.

    Returns
    -------
    Tensor
    """
    return _AddLoss.apply(output, loss, share)


class _AddLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, loss: Tensor, share: float) -> Tensor:
        ctx.share = share
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return ctx.share * gradient, gradient.new_ones(()), None
