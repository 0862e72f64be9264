"""Gradient descent through stacks of linear layers, derivatives written out.

Automatic differentiation of a gradient step costs a few hundred small operations,
half of which copy transposed matrices. Here the gradient is written as products in
the layout of the parameters, and the meta-gradient as one Hessian-vector product
per step, by the R-operator (Pearlmutter, "Fast exact multiplication by the Hessian",
Neural Computation 1994). No gradient is taken inside, so it can be compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._derivatives import (
    Gradient,
    Stack,
    descended,
    gradient_of,
    subtract_hessian_product,
)
from ._layers import Affine
from ._losses import InnerLoss, StackLoss
from ._objective import Objective
from ._sgd import Rate, Rates, last, moved, path, rate_of_step

#: Rates of a step: one for all parameters, or one for each number.
Numbers = float | Mapping[str, Tensor]


@dataclass(frozen=True)
class Descent:
    """What stays the same over the steps of gradient descent."""

    stack: Stack
    objective: Objective
    rates: tuple[Numbers, ...]
    first_order: bool
    adapted: tuple[str, ...]
    fixed: tuple[str, ...]

    def run(
        self, X: Tensor, tensors: tuple[Tensor, ...], keep: bool
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Adapted parameters at the end, and what the derivative needs if kept."""
        names = (*self.adapted, *self.fixed)
        values = dict(zip(names, tensors, strict=False))
        fast = {name: values[name] for name in self.adapted}
        kept: list[Tensor | None] = []
        for rate in self.rates:
            everything = {**values, **fast}
            gradient = gradient_of(self.stack, self.objective, X, everything)
            if keep:
                kept += [*fast.values(), *gradient.tensors()]
            if isinstance(rate, Mapping):
                fast = moved(fast, gradient.by_name(self.stack), rate)
            else:
                fast = descended(self.stack, gradient, fast, rate)
        return fast, kept

    def learned(self) -> list[Tensor]:
        """The learned rates of all steps."""
        return [
            rate[name]
            for rate in self.rates
            if isinstance(rate, Mapping)
            for name in self.adapted
        ]

    def pull_back(
        self,
        fixed: dict[str, Tensor],
        kept: Sequence[Tensor],
        totals: dict[str, Tensor],
        wants_rows: bool,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Carry gradients of the adapted parameters through all steps, last first.

        `totals` is edited into the gradients of the initial and fixed parameters;
        those of learned rates and of the rows are returned.
        """
        rates: list[Tensor] = []
        rows: Tensor | None = None
        size = len(self.adapted) + 2 * len(self.stack) + 1
        for index, rate in reversed([*enumerate(self.rates)]):
            step = kept[index * size : (index + 1) * size]
            fast = dict(zip(self.adapted, step, strict=False))
            gradient = Gradient.from_tensors(step[len(fast) :])
            direction = {name: totals[name] for name in self.adapted}
            if isinstance(rate, Mapping):
                found = gradient.by_name(self.stack)
                rates = [*_slopes(rate, direction, found), *rates]
                direction = {name: rate[name] * direction[name] for name in direction}
            if self.first_order:
                continue
            change = self._pull_step(
                totals, {**fixed, **fast}, gradient, direction, rate, wants_rows
            )
            if wants_rows and change is not None:
                rows = change if rows is None else rows + change
        return rates, rows

    def _pull_step(
        self,
        totals: dict[str, Tensor],
        parameters: dict[str, Tensor],
        gradient: Gradient,
        direction: dict[str, Tensor],
        rate: Numbers,
        wants_rows: bool,
    ) -> Tensor | None:
        # Rates of single parameters are part of the direction.
        scale = 1.0 if isinstance(rate, Mapping) else rate
        change = subtract_hessian_product(
            totals,
            self.stack,
            self.objective,
            parameters,
            gradient,
            direction,
            scale,
            wants_rows,
        )
        return None if change is None else -scale * change


def _slopes(
    rates: Mapping[str, Tensor],
    arrived: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> list[Tensor]:
    """Derivatives for the rates of a step."""
    return [
        -(tensor * gradients[name]).sum_to_size(rates[name].shape)
        for name, tensor in arrived.items()
    ]


class _Descend(torch.autograd.Function):
    """All steps of gradient descent as one operation."""

    @staticmethod
    def forward(
        ctx: Any, descent: Descent, X: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        keep = not descent.first_order or bool(descent.learned())
        fast, kept = descent.run(X, tensors, keep)
        n_adapted, n_fixed = len(descent.adapted), len(descent.fixed)
        ctx.descent = descent
        ctx.save_for_backward(*tensors[n_adapted : n_adapted + n_fixed], *kept)
        return tuple(fast.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        descent: Descent = ctx.descent
        saved = ctx.saved_tensors
        n_fixed = len(descent.fixed)
        # Edited below; and what arrives is often transposed.
        rowwise = (
            gradient.clone(memory_format=torch.contiguous_format)
            for gradient in gradients
        )
        totals = dict(zip(descent.adapted, rowwise, strict=True))
        fixed = dict(zip(descent.fixed, saved, strict=False))
        rates: list[Tensor] = []
        rows: Tensor | None = None
        if len(saved) > n_fixed:
            rates, rows = descent.pull_back(
                fixed, saved[n_fixed:], totals, ctx.needs_input_grad[1]
            )
        found = [totals.get(name) for name in (*descent.adapted, *descent.fixed)]
        return None, rows, *found, *rates


def stack_sgd(
    stack: Stack,
    objective: Objective,
    X: Tensor,
    initial: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    rates: Numbers | Sequence[Numbers],
    n_steps: int,
    first_order: bool = False,
) -> dict[str, Tensor]:
    """Parameters of each task after some steps of gradient descent.

    Equal to `sgd` on ``objective(stack(X))``, values and gradients, and several times
    faster. Differentiable once.

    Parameters
    ----------
    stack : sequence of Affine and Curve
        The model.
    objective : CrossEntropy or SquaredError
        Loss of the outputs of the stack.
    X : Tensor of shape (n_tasks, n_rows, n_features)
        Support rows.
    initial, fixed : dict of str to Tensor of shape (n_tasks, *parameter)
        Parameters of the stack that are adapted and that are not.
    rates, n_steps, first_order
        As in `sgd`; numbers, fixed or learned, no rules.

    Returns
    -------
    dict of str to Tensor of shape (n_tasks, *parameter)
        The adapted parameters.
    """
    while stack and not isinstance(stack[0], Affine):
        X, stack = stack[0](X, {}), stack[1:]
    schedule = tuple(_numbers(rate_of_step(rates, i)) for i in range(n_steps))
    descent = Descent(
        stack, objective, schedule, first_order, tuple(initial), tuple(fixed)
    )
    tensors = (*initial.values(), *fixed.values())
    if not torch.is_grad_enabled():
        return descent.run(X, tensors, keep=False)[0]
    found = _Descend.apply(descent, X, *tensors, *descent.learned())
    return dict(zip(initial, found, strict=True))


def _numbers(rate: Rate) -> Numbers:
    assert not callable(rate)
    return rate


def descend(
    loss: InnerLoss,
    initial: Mapping[str, Tensor],
    rates: Rates,
    n_steps: int,
    first_order: bool = False,
    proximal: float = 0.0,
) -> dict[str, Tensor]:
    """The end of `path`, by `stack_sgd` where that can do it."""
    steps = [rate_of_step(rates, step) for step in range(n_steps)]
    is_plain = not (proximal or any(map(callable, steps)))
    if isinstance(loss, StackLoss) and is_plain:
        return stack_sgd(
            loss.stack,
            loss.objective,
            loss.X,
            initial,
            loss.fixed,
            [_numbers(rate) for rate in steps],
            n_steps,
            first_order,
        )
    return last(path(loss, initial, steps, n_steps, first_order, proximal))
