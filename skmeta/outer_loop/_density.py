"""Learners that predict a Gaussian for every row, and the likelihood of its target."""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor, nn

from ..tasks._batch import TaskBatch
from ._learner import Learner, TaskState


class DensityLearner(Learner):
    """A learner for regression whose predictions have a standard deviation.

    Training shows the criterion both, ``(n_rows, 2)``; `GaussianLikelihood` takes
    them.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features.
    """

    @abstractmethod
    def density(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Mean and deviation of a new observation: ``(n_tasks, n_rows, 2)``."""

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Means ``(n_tasks, n_rows)``."""
        return self.density(state, query)[..., 0]

    def episode(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Mean and deviation of the query rows: ``(n_tasks, n_rows, 2)``."""
        return self.density(self.adapt(support), query)


class GaussianLikelihood(nn.Module):
    """Mean negative log-likelihood of targets under a Gaussian for each row.

    Examples
    --------
    >>> import torch
    >>> from skmeta.outer_loop import GaussianLikelihood
    >>> mean_and_std = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    >>> GaussianLikelihood()(mean_and_std, torch.tensor([0.0, 1.0]))
    tensor(1.2655)
    """

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """Loss of targets ``(n_rows,)`` under mean and deviation ``(n_rows, 2)``."""
        mean, std = output.unbind(-1)
        half_square = ((y - mean) / std).square() / 2
        return (half_square + std.log()).mean() + math.log(2 * math.pi) / 2


def positive(raw: Tensor, floor: float) -> Tensor:
    """Deviations above `floor` from numbers of any sign."""
    return floor + nn.functional.softplus(raw)
