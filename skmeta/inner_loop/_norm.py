"""Batch norm whose statistics belong to a task."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


class Moments(NamedTuple):
    """Mean and biased variance of each channel."""

    mean: Tensor
    variance: Tensor


class EpisodicBatchNorm(nn.Module):
    """Batch norm that normalises by the rows of one task and remembers nothing.

    Called as it is, it uses the statistics of the rows that it is given, in
    training and in evaluation alike. `TaskForward` tells it which rows are real, or
    hands it the statistics of the support rows to judge query rows by, so that the
    prediction for a row does not depend on which others came along [1]_.

    Parameters
    ----------
    norm : BatchNorm1d, BatchNorm2d or BatchNorm3d
        Its weight and bias are shared, under the same names; its running statistics
        are dropped.

    References
    ----------
    .. [1] Bronskill et al. "TaskNorm: rethinking batch normalization for
       meta-learning", ICML 2020.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, norm: _BatchNorm):
        super().__init__()
        self.num_features = norm.num_features
        self.eps = norm.eps
        self.register_parameter("weight", norm.weight)
        self.register_parameter("bias", norm.bias)
        self.prepare()

    def prepare(
        self,
        is_real: Tensor | None = None,
        moments: Moments | None = None,
        record: bool = False,
    ) -> None:
        """Set which rows count, which statistics to use, and whether to keep them."""
        self.is_real = is_real
        self.moments = moments
        self.record = record

    def forward(self, X: Tensor) -> Tensor:
        """Normalise ``(n_rows, n_channels, *positions)``."""
        moments = self.moments
        if moments is None:
            if self.is_real is None and not self.record and X.shape[0] > 0:
                return torch.batch_norm(
                    X, self.weight, self.bias, None, None, True, 0.0, self.eps, True
                )
            moments = self._measure(X)
            if self.record:
                self.moments = moments
        scale = torch.rsqrt(moments.variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -moments.mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        shape = (1, -1) + (1,) * (X.ndim - 2)
        return torch.addcmul(shift.view(shape), X, scale.view(shape))

    def _measure(self, X: Tensor) -> Moments:
        """Statistics of the real rows; mean 0 and variance 1 where there are none."""
        axes = [axis for axis in range(X.ndim) if axis != 1]
        shape = (-1,) + (1,) * (X.ndim - 1)
        is_real = X.new_ones(X.shape[0]) if self.is_real is None else self.is_real
        weight = is_real.to(X.dtype)
        n_values = weight.sum() * X[0:1, 0:1].numel() if X.shape[0] else weight.sum()
        share = (weight / n_values.clamp(min=1)).view(shape)
        mean = (X * share).sum(axes)
        centred = X - mean.view((1, -1) + (1,) * (X.ndim - 2))
        variance = (centred.square() * share).sum(axes)
        return Moments(mean, variance + (n_values == 0).to(X.dtype))

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


def without_running_statistics(module: nn.Module) -> nn.Module:
    """A module with the same parameters in which no layer has running statistics.

    Batch norm becomes `EpisodicBatchNorm`, instance norm stops tracking. Parameters
    are shared with `module`, which is not edited; where there is nothing to replace
    it is returned as it is.
    """
    if not any(map(_tracks, module.modules())):
        return module
    shared = {id(parameter): parameter for parameter in module.parameters()}
    return _replaced(copy.deepcopy(module, shared), {})


def _tracks(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or (
        isinstance(module, _InstanceNorm) and module.track_running_stats
    )


def _replaced(module: nn.Module, seen: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in seen:
        return seen[module]
    if isinstance(module, _BatchNorm):
        return seen.setdefault(module, EpisodicBatchNorm(module))
    if isinstance(module, _InstanceNorm):
        module.track_running_stats = False
        module.running_mean = module.running_var = module.num_batches_tracked = None
    seen[module] = module
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = _replaced(child, seen)
    return module
