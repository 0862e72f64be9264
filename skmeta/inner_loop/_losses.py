"""The loss of the support rows as a function of what is adapted.

Two kinds with the same methods: the gradient of one is found by automatic
differentiation, that of the other is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ._derivatives import Gradient, Stack, gradient_of, subtract_hessian_product
from ._layers import Affine
from ._objective import Objective

Gradients = Mapping[str, Tensor | None]
#: Multiplies a direction by a matrix; a missing entry is zero.
Product = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class ModuleLoss:
    """A loss that is differentiated automatically.

    Parameters
    ----------
    loss : callable
        Maps parameters by name to the loss of each task, ``(n_tasks,)``.
    """

    def __init__(self, loss: Callable[[dict[str, Tensor]], Tensor]):
        self.loss = loss

    def values(self, fast: Mapping[str, Tensor]) -> Tensor:
        """Loss of each task."""
        return self.loss(dict(fast))

    @torch.compiler.disable
    def gradients(self, fast: Mapping[str, Tensor], second_order: bool) -> Gradients:
        """Gradient by name, None where the loss does not depend on a parameter.

        Parameters
        ----------
        fast : dict of str to Tensor of shape (n_tasks, *parameter)
            Where it is taken.
        second_order : bool
            Whether it is differentiable itself.
        """
        with torch.enable_grad():
            points = {
                name: tensor
                if second_order and tensor.requires_grad
                else tensor.detach().requires_grad_()
                for name, tensor in fast.items()
            }
            total = self.loss(points).sum()
            if not total.requires_grad:  # of no rows
                return dict.fromkeys(points)
            found = torch.autograd.grad(
                total,
                list(points.values()),
                create_graph=second_order,
                allow_unused=True,
            )
        return dict(zip(points, found, strict=True))

    @torch.compiler.disable
    def hessian(self, point: Mapping[str, Tensor]) -> Product:
        """The Hessian of each task at a point, as a product with directions."""
        point = {
            name: tensor.detach().requires_grad_() for name, tensor in point.items()
        }
        gradients = self.gradients(point, second_order=True)
        curved = {k: g for k, g in gradients.items() if g is not None and g.grad_fn}

        def product(direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = torch.autograd.grad(
                list(curved.values()),
                list(point.values()),
                [direction[name] for name in curved],
                retain_graph=True,
                materialize_grads=True,
                allow_unused=True,
            )
            return dict(zip(point, found, strict=True))

        return product


class StackLoss:
    """A loss of a stack of linear layers, whose derivatives are written out.

    Parameters
    ----------
    stack : sequence of Affine and Curve
        The model.
    objective : CrossEntropy or SquaredError
        Loss of the outputs of the stack.
    X : Tensor of shape (n_tasks, n_rows, n_features)
        Support rows.
    fixed : dict of str to Tensor of shape (n_tasks, *parameter)
        Parameters of the stack that are not adapted.
    """

    def __init__(
        self, stack: Stack, objective: Objective, X: Tensor, fixed: Mapping[str, Tensor]
    ):
        while stack and not isinstance(stack[0], Affine):
            X, stack = stack[0](X, {}), stack[1:]
        self.stack = stack
        self.objective = objective
        self.X = X
        self.fixed = fixed

    def values(self, fast: Mapping[str, Tensor]) -> Tensor:
        """Loss of each task."""
        out, parameters = self.X, {**self.fixed, **fast}
        for layer in self.stack:
            out = layer(out, parameters)
        return self.objective(out)

    def gradients(self, fast: Mapping[str, Tensor], second_order: bool) -> Gradients:
        """Gradient by name.

        Parameters
        ----------
        fast : dict of str to Tensor of shape (n_tasks, *parameter)
            Where it is taken.
        second_order : bool
            Whether it is differentiable itself, once.
        """
        if not second_order:
            with torch.no_grad():
                gradient = self._gradient(fast).by_name(self.stack)
            return {name: gradient[name] for name in fast}
        parameters = {**self.fixed, **fast}
        found = _Differentiable.apply(
            self, tuple(parameters), tuple(fast), self.X, *parameters.values()
        )
        return dict(zip(fast, found, strict=True))

    def hessian(self, point: Mapping[str, Tensor]) -> Product:
        """The Hessian of each task at a point, as a product with directions."""
        with torch.no_grad():
            gradient = self._gradient(point)

        def product(direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            self.push(found, {**self.fixed, **point}, gradient, direction)
            return {name: found[name] for name in point}

        return product

    def push(
        self,
        totals: dict[str, Tensor],
        parameters: Mapping[str, Tensor],
        gradient: Gradient,
        direction: Mapping[str, Tensor],
        wants_rows: bool = False,
    ) -> Tensor | None:
        """Add the product of the Hessian with a direction to totals."""
        return subtract_hessian_product(
            totals,
            self.stack,
            self.objective,
            parameters,
            gradient,
            direction,
            -1.0,
            wants_rows,
        )

    def _gradient(self, fast: Mapping[str, Tensor]) -> Gradient:
        return gradient_of(self.stack, self.objective, self.X, {**self.fixed, **fast})


InnerLoss = ModuleLoss | StackLoss


class _Differentiable(torch.autograd.Function):
    """The written-out gradient as one operation; its derivative is the Hessian."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: StackLoss,
        names: tuple[str, ...],
        adapted: tuple[str, ...],
        X: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, tensors, strict=True))
        gradient = gradient_of(loss.stack, loss.objective, X, parameters)
        ctx.loss, ctx.names, ctx.adapted = loss, names, adapted
        ctx.save_for_backward(*tensors, *gradient.tensors())
        found = gradient.by_name(loss.stack)
        return tuple(found[name] for name in adapted)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        names = ctx.names
        parameters = dict(zip(names, ctx.saved_tensors, strict=False))
        gradient = Gradient.from_tensors(ctx.saved_tensors[len(names) :])
        direction = dict(zip(ctx.adapted, directions, strict=True))
        found: dict[str, Tensor] = {}
        rows = ctx.loss.push(
            found, parameters, gradient, direction, ctx.needs_input_grad[3]
        )
        return None, None, None, rows, *(found.get(name) for name in names)
