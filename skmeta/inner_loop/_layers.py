"""Stacks of linear layers, evaluated for all tasks at once by batched products."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Parameters = Mapping[str, Tensor]

#: Activations that treat every number alike, so an extra axis changes nothing.
ELEMENTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
)


@dataclass(frozen=True)
class Affine:
    """A linear layer; its parameters may differ between tasks."""

    weight: str
    bias: str | None

    def __call__(self, X: Tensor, parameters: Parameters) -> Tensor:
        weight = parameters[self.weight]
        bias = None if self.bias is None else parameters[self.bias]
        if weight.ndim == 2:
            return F.linear(X, weight, bias)
        rows = X.flatten(1, -2)
        if bias is None:
            out = torch.bmm(rows, weight.transpose(1, 2))
        else:
            out = add_product(bias.unsqueeze(1), rows, weight.transpose(1, 2))
        return out.view(*X.shape[:-1], weight.shape[1])


@dataclass(frozen=True)
class Elementwise:
    """A layer without parameters that acts on each number."""

    module: nn.Module

    def __call__(self, X: Tensor, parameters: Parameters) -> Tensor:
        if isinstance(self.module, nn.Dropout):
            return F.dropout(X, self.module.p, self.module.training)
        # In place, an activation at the front would overwrite the data.
        return self.module(X.clone() if getattr(self.module, "inplace", False) else X)


@dataclass(frozen=True)
class Norm:
    """Layer norm over the features of a row."""

    weight: str | None
    bias: str | None
    shape: tuple[int, ...]
    eps: float

    def __call__(self, X: Tensor, parameters: Parameters) -> Tensor:
        out = F.layer_norm(X, self.shape, eps=self.eps)
        if self.weight is not None:
            out = out * _as_rows(parameters[self.weight], X.ndim)
        if self.bias is not None:
            out = out + _as_rows(parameters[self.bias], X.ndim)
        return out


@dataclass(frozen=True)
class Flatten:
    """Every row becomes a vector."""

    def __call__(self, X: Tensor, parameters: Parameters) -> Tensor:
        return X.flatten(2)


Layer = Affine | Elementwise | Norm | Flatten


def add_product(
    start: Tensor, left: Tensor, right: Tensor, scale: float = 1.0
) -> Tensor:
    """``start + scale * left @ right`` for each task."""
    if torch.compiler.is_compiling():
        # The compiler merges the sum with what comes before and after it.
        return start + scale * torch.bmm(left, right)
    return torch.baddbmm(start, left, right, alpha=scale)


def _as_rows(parameter: Tensor, ndim: int) -> Tensor:
    """A vector per task as something that broadcasts over the rows of the task."""
    if parameter.ndim == 1:
        return parameter
    return parameter.view(parameter.shape[0], *(1,) * (ndim - 2), -1)


def batched_layers(module: nn.Module) -> list[Layer] | None:
    """The module as a list of batched layers, or None where that cannot be done.

    What is recognised: `nn.Sequential`, nested and subclassed, of linear layers,
    elementwise activations, dropout, layer norm and flattening.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) != len(list(module.parameters())):
        return None  # a layer that is used twice has one gradient, not two
    layers = []
    for name, leaf in _leaves(module, ""):
        layer = _batched(name, leaf)
        if layer is None:
            return None
        layers.append(layer)
    return layers


def takes_vectors(layers: Sequence[Layer], X: Tensor) -> bool:
    """Whether all linear layers see one vector per row of X."""
    if not X.is_floating_point():
        return False
    before = itertools.takewhile(lambda layer: not isinstance(layer, Affine), layers)
    return X.ndim == 3 or any(isinstance(layer, Flatten) for layer in before)


def _leaves(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    is_plain = type(module).forward is nn.Sequential.forward and not _has_hooks(module)
    if not is_plain:
        yield prefix, module
        return
    for name, child in module._modules.items():
        assert child is not None
        yield from _leaves(child, f"{prefix}{name}.")


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _batched(prefix: str, leaf: nn.Module) -> Layer | None:
    build = _BUILDERS.get(type(leaf))
    return None if build is None or _has_hooks(leaf) else build(prefix, leaf)


def _affine(prefix: str, leaf: nn.Linear) -> Layer:
    bias = None if leaf.bias is None else f"{prefix}bias"
    return Affine(f"{prefix}weight", bias)


def _norm(prefix: str, leaf: nn.LayerNorm) -> Layer | None:
    if len(leaf.normalized_shape) != 1:
        return None
    weight = None if leaf.weight is None else f"{prefix}weight"
    bias = None if leaf.bias is None else f"{prefix}bias"
    return Norm(weight, bias, tuple(leaf.normalized_shape), leaf.eps)


def _flatten(prefix: str, leaf: nn.Flatten) -> Layer | None:
    return Flatten() if (leaf.start_dim, leaf.end_dim) == (1, -1) else None


_BUILDERS: dict[type, Callable[..., Layer | None]] = {
    nn.Linear: _affine,
    nn.LayerNorm: _norm,
    nn.Flatten: _flatten,
    nn.Dropout: lambda prefix, leaf: Elementwise(leaf),
    **{kind: (lambda prefix, leaf: Elementwise(leaf)) for kind in ELEMENTWISE},
}
