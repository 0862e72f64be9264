"""Gradient and Hessian-vector product of a stack of linear layers, written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._curves import Curve
from ._layers import Affine, add_product
from ._objective import Objective

Stack = Sequence[Affine | Curve]
Parameters = Mapping[str, Tensor]


@dataclass
class Gradient:
    """A gradient in factors, which its derivative needs again.

    Parameters
    ----------
    factors : list of (Tensor, Tensor or None)
        For an affine layer its input and the loss gradient at its output; for an
        activation its first derivative, and the second one times the loss gradient.
    memory : Tensor
        What the objective remembers.
    """

    factors: list[tuple[Tensor, Tensor | None]]
    memory: Tensor

    def tensors(self) -> list[Tensor | None]:
        """All tensors in one list."""
        return [*(tensor for pair in self.factors for tensor in pair), self.memory]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> Gradient:
        """Inverse of `tensors`."""
        pairs = zip(tensors[:-1:2], tensors[1:-1:2], strict=True)
        return cls([*pairs], tensors[-1])

    def by_name(self, stack: Stack) -> dict[str, Tensor]:
        """Gradient of each parameter of the stack."""
        found = {}
        for layer, (rows, delta) in zip(stack, self.factors, strict=True):
            if isinstance(layer, Affine) and delta is not None:
                found[layer.weight] = torch.bmm(delta.transpose(1, 2), rows)
                if layer.bias is not None:
                    found[layer.bias] = delta.sum(1)
        return found


def gradient_of(
    stack: Stack, objective: Objective, X: Tensor, parameters: Parameters
) -> Gradient:
    """Gradient of the objective; the stack begins with an affine layer."""
    kept: list[tuple[Tensor, Tensor | None]] = []
    for layer in stack:
        out = layer(X, parameters)
        kept.append((X, None) if isinstance(layer, Affine) else layer.factors(X, out))
        X = out
    delta, memory = objective.gradient(X)
    for place in range(len(stack) - 1, -1, -1):
        layer, (first, second) = stack[place], kept[place]
        if isinstance(layer, Affine):
            kept[place] = first, delta
            if place > 0:
                delta = torch.bmm(delta, parameters[layer.weight])
        else:
            kept[place] = first, None if second is None else second * delta
            delta = delta * first
    return Gradient(kept, memory)


def descended(
    stack: Stack, gradient: Gradient, parameters: Parameters, rate: float
) -> dict[str, Tensor]:
    """The given parameters, one step further down."""
    moved = {}
    for layer, (rows, delta) in zip(stack, gradient.factors, strict=True):
        if not isinstance(layer, Affine) or delta is None:
            continue
        if layer.weight in parameters:
            start = parameters[layer.weight]
            moved[layer.weight] = add_product(start, delta.transpose(1, 2), rows, -rate)
        if layer.bias is not None and layer.bias in parameters:
            start = parameters[layer.bias]
            moved[layer.bias] = torch.sub(start, delta.sum(1), alpha=rate)
    return moved


def subtract_hessian_product(
    totals: dict[str, Tensor],
    stack: Stack,
    objective: Objective,
    parameters: Parameters,
    gradient: Gradient,
    direction: Parameters,
    scale: float,
    wants_rows: bool,
) -> Tensor | None:
    """Subtract ``scale`` times the product of the Hessian with a direction.

    Parameters
    ----------
    totals : dict of str to Tensor
        Edited: what to subtract from. A name that is not there counts as zero.
    stack, objective
        The model and its loss.
    parameters : dict of str to Tensor
        Where the Hessian is taken.
    gradient : Gradient
        At the same place.
    direction : dict of str to Tensor
        Zero for parameters that are not named.
    scale : float
        Factor.
    wants_rows : bool
        Whether the derivative for the rows of the stack is needed.

    Returns
    -------
    Tensor or None
        The same for the rows, before scaling; None is zero.
    """
    pushed, out = _push(stack, parameters, gradient, direction)
    if out is None:
        return None
    moving = objective.tangent(gradient.memory, out)
    for place in range(len(stack) - 1, -1, -1):
        layer, (first, second) = stack[place], gradient.factors[place]
        along = pushed[place]
        if not isinstance(layer, Affine):
            moving = moving * first
            if second is not None and along is not None:
                moving = torch.addcmul(moving, second, along)
            continue
        assert second is not None
        arrived = moving
        if place > 0 or wants_rows:
            moving = torch.bmm(arrived, parameters[layer.weight])
            if layer.weight in direction:
                moving = add_product(moving, second, direction[layer.weight])
        _subtract_outer(totals, layer, arrived, second, first, along, scale)
    return moving


def _push(
    stack: Stack, parameters: Parameters, gradient: Gradient, direction: Parameters
) -> tuple[list[Tensor | None], Tensor | None]:
    """Derivatives along the direction: of the input of each layer, of the output."""
    inputs: list[Tensor | None] = []
    out: Tensor | None = None
    for layer, (first, _) in zip(stack, gradient.factors, strict=True):
        inputs.append(out)
        if isinstance(layer, Affine):
            out = _push_affine(layer, parameters, first, direction, out)
        elif out is not None:
            out = out * first
    return inputs, out


def _push_affine(
    layer: Affine,
    parameters: Parameters,
    rows: Tensor,
    direction: Parameters,
    along: Tensor | None,
) -> Tensor | None:
    out: Tensor | None = None
    if layer.bias is not None and layer.bias in direction:
        out = direction[layer.bias].unsqueeze(1)
    if layer.weight in direction:
        out = _add_or_start(out, rows, direction[layer.weight].transpose(1, 2))
    if along is not None:
        out = _add_or_start(out, along, parameters[layer.weight].transpose(1, 2))
    return out


def _subtract_outer(
    totals: dict[str, Tensor],
    layer: Affine,
    moving: Tensor,
    delta: Tensor,
    rows: Tensor,
    along: Tensor | None,
    scale: float,
) -> None:
    _subtract(totals, layer.weight, moving.transpose(1, 2), rows, scale)
    if along is not None:
        _subtract(totals, layer.weight, delta.transpose(1, 2), along, scale)
    if layer.bias is not None:
        summed = moving.sum(1)
        if layer.bias in totals:
            totals[layer.bias].sub_(summed, alpha=scale)
        else:
            totals[layer.bias] = -scale * summed


def _subtract(
    totals: dict[str, Tensor], name: str, left: Tensor, right: Tensor, scale: float
) -> None:
    if name not in totals:
        totals[name] = torch.bmm(left, right) * -scale
    elif torch.compiler.is_compiling():
        totals[name] = add_product(totals[name], left, right, -scale)
    else:
        totals[name].baddbmm_(left, right, alpha=-scale)


def _add_or_start(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    return torch.bmm(left, right) if total is None else add_product(total, left, right)
