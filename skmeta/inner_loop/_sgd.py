"""Differentiable gradient descent on the support rows of many tasks at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ._losses import Gradients, InnerLoss, ModuleLoss

#: Maps parameters and their gradients to the parameters after a step.
Step = Callable[[Mapping[str, Tensor], Gradients], dict[str, Tensor]]
Rate = float | Mapping[str, Tensor] | Step
Rates = Rate | Sequence[Rate]


# A compiled forward pass cannot be differentiated twice, so a compiler leaves this
# alone; what it can compile is `stack_sgd`.
@torch.compiler.disable
def sgd(
    loss: Callable[[dict[str, Tensor]], Tensor],
    initial: Mapping[str, Tensor],
    rates: Rates,
    n_steps: int,
    first_order: bool = False,
    proximal: float = 0.0,
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
    rates : float, dict of str to Tensor, callable, or sequence of those
        One rate, one for each number (tensors that broadcast with the parameter), or
        a rule that maps parameters and gradients to new parameters. A sequence has
        one for each step; the last is repeated.
    n_steps : int
        Number of steps.
    first_order : bool, default=False
        Take the inner gradients as constants (first-order MAML).
    proximal : float, default=0.0
        Strength of a quadratic pull to where the descent started.

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
    return last(path(ModuleLoss(loss), initial, rates, n_steps, first_order, proximal))


def last(items: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The last one, without keeping the others."""
    return deque(items, maxlen=1)[0]


def path(
    loss: InnerLoss,
    initial: Mapping[str, Tensor],
    rates: Rates,
    n_steps: int,
    first_order: bool = False,
    proximal: float = 0.0,
) -> Iterator[dict[str, Tensor]]:
    """Parameters at the start and after every step, as they are asked for.

    Parameters
    ----------
    loss : ModuleLoss or StackLoss
        What to descend on.
    initial, rates, n_steps, first_order, proximal
        As in `sgd`.

    Yields
    ------
    dict of str to Tensor of shape (n_tasks, *parameter)
    """
    second_order = torch.is_grad_enabled() and not first_order
    fast = dict(initial)
    yield fast
    for step in range(n_steps):
        gradients = loss.gradients(fast, second_order)
        if proximal:
            gradients = pulled(gradients, fast, initial, proximal)
        fast = moved(fast, gradients, rate_of_step(rates, step))
        yield fast


def rate_of_step(rates: Rates, step: int) -> Rate:
    """The rate or rates of one step."""
    if isinstance(rates, Sequence):
        return rates[min(step, len(rates) - 1)]
    return rates


def moved(
    start: Mapping[str, Tensor], gradients: Gradients, rate: Rate
) -> dict[str, Tensor]:
    """One step down; without a gradient a parameter stays where it is."""
    if callable(rate):
        return rate(start, gradients)
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


def pulled(
    gradients: Gradients,
    fast: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    proximal: float,
) -> Gradients:
    """Gradients with that of a quadratic around the initial parameters."""
    found = dict(gradients)
    for name, gradient in gradients.items():
        if gradient is not None:
            way = fast[name] - initial[name]
            found[name] = torch.add(gradient, way, alpha=proximal)
    return found
