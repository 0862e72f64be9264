"""Gradients that no loss is behind."""

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
