"""Differentiable gradient descent on the support rows of many tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Rate = float | Mapping[str, Tensor]
Rates = float | Sequence[float] | Mapping[str, Tensor]


# A compiled forward pass cannot be differentiated twice, so a compiler leaves this
# alone; what it can compile is `stack_sgd`.
@torch.compiler.disable
def sgd(
    loss: Callable[[dict[str, Tensor]], Tensor],
    initial: Mapping[str, Tensor],
    rates: Rates,
    n_steps: int,
    first_order: bool = False,
) -> dict[str, Tensor]:
    """Parameters of each task after some steps of gradient descent.

    The losses of all tasks are summed, so one backward pass gives the gradients of
    every task with respect to its own parameters. The result is differentiable with
    respect to the initial parameters and the rates, as MAML [1]_ and Meta-SGD [2]_
    need it. In first order, and where gradients are disabled, no graph outlives a
    step.

    Parameters
    ----------
    loss : callable
        Maps parameters by name to the loss of each task, ``(n_tasks,)``.
    initial : dict of str to Tensor of shape (n_tasks, *parameter)
        What to start from.
    rates : float, sequence of float or dict of str to Tensor of shape (*parameter)
        One rate, one for each step (the last is repeated), or one for each number.
    n_steps : int
        Number of steps.
    first_order : bool, default=False
        Take the inner gradients as constants (first-order MAML).

    Returns
    -------
    dict of str to Tensor of shape (n_tasks, *parameter)

    References
    ----------
    .. [1] Finn, Abbeel, Levine. "Model-agnostic meta-learning for fast adaptation of
       deep networks", ICML 2017.
    .. [2] Li, Zhou, Chen, Li. "Meta-SGD: learning to learn quickly for few-shot
       learning", arXiv 1707.09835, 2017.
    """
    second_order = torch.is_grad_enabled() and not first_order
    fast = dict(initial)
    for step in range(n_steps):
        gradients = _gradients(loss, fast, second_order)
        fast = moved(fast, gradients, rate_of_step(rates, step))
    return fast


def rate_of_step(rates: Rates, step: int) -> Rate:
    """The rate or rates of one step."""
    if isinstance(rates, Sequence):
        return rates[min(step, len(rates) - 1)]
    return rates


def _gradients(
    loss: Callable[[dict[str, Tensor]], Tensor],
    fast: Mapping[str, Tensor],
    second_order: bool,
) -> dict[str, Tensor | None]:
    with torch.enable_grad():
        points = {
            name: tensor
            if second_order and tensor.requires_grad
            else tensor.detach().requires_grad_()
            for name, tensor in fast.items()
        }
        found = torch.autograd.grad(
            loss(points).sum(),
            list(points.values()),
            create_graph=second_order,
            allow_unused=True,
        )
    return dict(zip(points, found, strict=True))


def moved(
    start: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None], rate: Rate
) -> dict[str, Tensor]:
    """One step down; without a gradient a parameter stays where it is."""
    after = dict(start)
    for name, tensor in start.items():
        gradient = gradients[name]
        if gradient is None:
            continue
        if isinstance(rate, Mapping):
            after[name] = tensor - rate[name] * gradient
        else:
            after[name] = torch.add(tensor, gradient, alpha=-rate)
    return after
