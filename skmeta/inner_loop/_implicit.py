"""Derivative of a minimum by the implicit function theorem, for many tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ._losses import InnerLoss
from ._sgd import last, moved, pulled


def minimise(
    loss: InnerLoss,
    initial: Mapping[str, Tensor],
    rate: float,
    n_steps: int,
    proximal: float,
) -> dict[str, Tensor]:
    """Descend on ``loss + proximal / 2 * |parameters - initial|^2``; no graph is kept.

    A step that would not lower it is not taken, and the rate of its task is halved:
    what is wanted is the minimum, however it is found.

    Parameters
    ----------
    loss : ModuleLoss or StackLoss
        Without the quadratic.
    initial : dict of str to Tensor of shape (n_tasks, *parameter)
        Start and centre.
    rate : float
        Rate of the first step.
    n_steps : int
        Number of steps, those not taken included.
    proximal : float
        Strength of the quadratic.

    Returns
    -------
    dict of str to Tensor of shape (n_tasks, *parameter)
    """
    return last(descent(loss, initial, rate, n_steps, proximal))


@torch.no_grad()
def descent(
    loss: InnerLoss,
    initial: Mapping[str, Tensor],
    rate: float,
    n_steps: int,
    proximal: float,
) -> Iterator[dict[str, Tensor]]:
    """Parameters at the start and after every step of `minimise`."""

    def height(fast: Mapping[str, Tensor]) -> Tensor:
        squares = [(fast[k] - initial[k]).square().flatten(1).sum(1) for k in fast]
        return loss.values(fast) + proximal / 2 * torch.stack(squares).sum(0)

    fast = {name: tensor.detach() for name, tensor in initial.items()}
    yield fast
    lowest = height(fast) if fast and n_steps else torch.zeros(())
    rates = torch.full_like(lowest, rate)
    for _ in range(n_steps if fast else 0):
        gradients = pulled(loss.gradients(fast, False), fast, initial, proximal)
        steps = {name: _as_factor(rates, tensor) for name, tensor in fast.items()}
        tried = moved(fast, gradients, steps)
        reached = height(tried)
        falls = reached < lowest
        fast = {
            name: torch.where(_as_factor(falls, tensor), tried[name], tensor)
            for name, tensor in fast.items()
        }
        yield fast
        lowest = torch.where(falls, reached, lowest)
        rates = torch.where(falls, rates, rates / 2)


def implicit(
    loss: InnerLoss,
    initial: Mapping[str, Tensor],
    minimum: Mapping[str, Tensor],
    proximal: float,
    n_steps: int,
) -> dict[str, Tensor]:
    """The minimum as a function of the centre that a quadratic pulls it to.

    Where ``minimum`` minimises ``loss + proximal / 2 * |minimum - initial|^2``, its
    derivative is the inverse of ``1 + Hessian / proximal``. The product with it is
    found by conjugate gradients, which need one Hessian-vector product a step [1]_.
    How the minimum was found does not matter and leaves nothing in memory.

    Parameters
    ----------
    loss : ModuleLoss or StackLoss
        Without the quadratic.
    initial : dict of str to Tensor of shape (n_tasks, *parameter)
        The centre.
    minimum : dict of str to Tensor of shape (n_tasks, *parameter)
        Detached.
    proximal : float
        Strength of the quadratic, positive.
    n_steps : int
        Steps of conjugate gradients, from the identity on: none is first order.

    Returns
    -------
    dict of str to Tensor of shape (n_tasks, *parameter)
        `minimum`, differentiable once.

    References
    ----------
    .. [1] Rajeswaran, Finn, Kakade and Levine. "Meta-learning with implicit
       gradients", NeurIPS 2019.
    """
    names = tuple(initial)
    found = _Implicit.apply(
        loss,
        names,
        proximal,
        n_steps,
        *(minimum[name] for name in names),
        *initial.values(),
    )
    return dict(zip(names, found, strict=True))


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: InnerLoss,
        names: tuple[str, ...],
        proximal: float,
        n_steps: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        minimum = tensors[: len(names)]
        ctx.call = loss, names, proximal, n_steps
        ctx.save_for_backward(*minimum)
        return tuple(tensor.view_as(tensor) for tensor in minimum)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        loss, names, proximal, n_steps = ctx.call
        hessian = loss.hessian(dict(zip(names, ctx.saved_tensors, strict=True)))
        shapes = [gradient.shape for gradient in gradients]
        sizes = [shape[1:].numel() for shape in shapes]

        def split(flat: Tensor) -> list[Tensor]:
            parts = flat.split(sizes, 1)
            return [
                part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
            ]

        def product(flat: Tensor) -> Tensor:
            pushed = hessian(dict(zip(names, split(flat), strict=True)))
            return torch.add(flat, _flat([*pushed.values()]), alpha=1 / proximal)

        solved = conjugate_gradients(product, _flat(gradients), n_steps)
        return None, None, None, None, *(None for _ in names), *split(solved)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, n_steps: int
) -> Tensor:
    """Solve a symmetric linear system of each task, starting from its right side.

    Parameters
    ----------
    product : callable
        Multiplies ``(n_tasks, n)`` by the matrix of each task. Positive definite; a
        task where a direction shows that it is not stops there.
    right : Tensor of shape (n_tasks, n)
        Right sides.
    n_steps : int
        Number of steps; n are enough but for rounding.

    Returns
    -------
    Tensor of shape (n_tasks, n)
    """
    solution = right
    if n_steps == 0:
        return solution
    residual = direction = right - product(right)
    square = residual.square().sum(1, keepdim=True)
    for _ in range(n_steps):
        pushed = product(direction)
        curvature = (direction * pushed).sum(1, keepdim=True)
        goes_on = curvature > 0
        length = torch.where(goes_on, square / curvature, 0.0)
        solution = solution + length * direction
        residual = residual - length * pushed
        before, square = square, residual.square().sum(1, keepdim=True)
        # A direction of zero has no curvature, so a task that stopped stays.
        direction = torch.where(goes_on, residual + square / before * direction, 0.0)
    return solution


def _flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in tensors], 1)


def _as_factor(of_tasks: Tensor, tensor: Tensor) -> Tensor:
    return of_tasks.view(-1, *(1,) * (tensor.ndim - 1))
