"""Activations with their first and second derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._layers import Affine, Elementwise, Flatten, Layer

#: Maps the activation's module, its input and its output to the first derivative.
Slope = Callable[[nn.Module, Tensor, Tensor], Tensor]
#: Maps the input, the output and the first derivative to the second derivative.
Bend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Curve:
    """An activation whose derivatives are known; piecewise linear without `bend`."""

    activation: Elementwise
    slope: Slope
    bend: Bend | None = None

    def __call__(self, X: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.activation(X, parameters)

    def factors(self, X: Tensor, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """First and second derivative; None where the second is zero."""
        slope = self.slope(self.activation.module, X, out)
        return slope, None if self.bend is None else self.bend(X, out, slope)


def _leaky_slope(module: nn.Module, z: Tensor, h: Tensor) -> Tensor:
    below = module.negative_slope
    assert isinstance(below, float)
    return torch.where(z > 0, torch.ones_like(z), below)


def _density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _gelu_slope(module: nn.Module, z: Tensor, h: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * _density(z)


def _silu_slope(module: nn.Module, z: Tensor, h: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate + h * (1 - gate)


def _silu_bend(z: Tensor, h: Tensor, slope: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 - gate) * (2 + z * (1 - 2 * gate))


_DERIVATIVES: dict[type[nn.Module], tuple[Slope, Bend | None]] = {
    nn.ReLU: (lambda module, z, h: h.sign(), None),
    nn.LeakyReLU: (_leaky_slope, None),
    nn.Tanh: (lambda module, z, h: 1 - h * h, lambda z, h, slope: -2 * h * slope),
    nn.Sigmoid: (
        lambda module, z, h: h * (1 - h),
        lambda z, h, slope: slope * (1 - 2 * h),
    ),
    nn.SiLU: (_silu_slope, _silu_bend),
    nn.GELU: (_gelu_slope, lambda z, h, slope: _density(z) * (2 - z * z)),
}


def as_stack(layers: Sequence[Layer], prefix: str = "") -> list[Affine | Curve] | None:
    """Layers whose derivatives can be written out, or None if one of them cannot.

    Flattening is left to the caller; dropout is left out where it does nothing. Names
    of parameters get the prefix.
    """
    stack: list[Affine | Curve] = []
    for layer in layers:
        if isinstance(layer, Affine):
            bias = None if layer.bias is None else prefix + layer.bias
            stack.append(Affine(prefix + layer.weight, bias))
        elif isinstance(layer, Elementwise) and not _does_nothing(layer.module):
            derivatives = _DERIVATIVES.get(type(layer.module))
            if derivatives is None or getattr(layer.module, "approximate", "none") != (
                "none"
            ):
                return None
            stack.append(Curve(layer, *derivatives))
        elif not isinstance(layer, Elementwise | Flatten):
            return None
    return stack


def _does_nothing(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return module.p == 0 or not module.training
    return isinstance(module, nn.Identity)
