"""What the inner loop minimises, with its derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tasks._batch import TaskBatch


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy over the real rows of each task.

    Parameters
    ----------
    target : Tensor of shape (n_tasks, n_rows, n_classes)
        One-hot classes; zero for padding.
    weight : Tensor of shape (n_tasks, n_rows, 1)
        Share of each row in the loss of its task; zero for padding.
    exists : bool Tensor of shape (n_tasks, 1, n_classes) or None
        Which classes a task has.
    """

    target: Tensor
    weight: Tensor
    exists: Tensor | None = None

    def __call__(self, outputs: Tensor) -> Tensor:
        """Loss of each task, ``(n_tasks,)``."""
        logits = self._masked(outputs).log_softmax(-1)
        if self.exists is not None:
            logits = logits.masked_fill(~self.exists, 0.0)
        return -(logits * self.target * self.weight).sum((1, 2))

    def gradient(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative with respect to the outputs, and what `tangent` needs."""
        probability = self._masked(outputs).softmax(-1)
        return (probability - self.target) * self.weight, probability

    def tangent(self, probability: Tensor, direction: Tensor) -> Tensor:
        """Derivative of the gradient along a direction of the outputs."""
        pushed = probability * direction
        mean = pushed.sum(-1, keepdim=True)
        return torch.addcmul(pushed, probability, mean, value=-1) * self.weight

    def _masked(self, outputs: Tensor) -> Tensor:
        if self.exists is None:
            return outputs
        return outputs.masked_fill(~self.exists, -torch.inf)


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error over the real rows of each task.

    Parameters
    ----------
    target : Tensor of shape (n_tasks, n_rows, 1)
        Regression targets.
    weight : Tensor of shape (n_tasks, n_rows, 1)
        Share of each row in the loss of its task; zero for padding.
    """

    target: Tensor
    weight: Tensor

    def __call__(self, outputs: Tensor) -> Tensor:
        """Loss of each task, ``(n_tasks,)``."""
        return ((outputs - self.target).square() * self.weight).sum((1, 2))

    def gradient(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative with respect to the outputs, and what `tangent` needs."""
        slope = 2 * self.weight
        return (outputs - self.target) * slope, slope

    def tangent(self, slope: Tensor, direction: Tensor) -> Tensor:
        """Derivative of the gradient along a direction of the outputs."""
        return slope * direction


Objective = CrossEntropy | SquaredError


def objective_of(batch: TaskBatch, dtype: torch.dtype) -> Objective:
    """The loss for the targets of a batch: classes or, without `n_classes`, numbers."""
    assert batch.y is not None
    weight = _row_shares(batch, dtype).unsqueeze(-1)
    if batch.n_classes is None:
        return SquaredError(batch.y.to(dtype).unsqueeze(-1), weight)
    target = F.one_hot(batch.y, batch.n_classes).to(dtype)
    if batch.mask is not None:
        target = target * batch.mask.unsqueeze(-1)
    return CrossEntropy(target, weight, _exists(batch.class_mask))


def _row_shares(batch: TaskBatch, dtype: torch.dtype) -> Tensor:
    """One over the number of real rows; zero for padding."""
    weights = batch.weights.to(dtype)
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _exists(class_mask: Tensor | None) -> Tensor | None:
    """A task without any class gets all of them: a softmax over nothing is NaN."""
    if class_mask is None:
        return None
    return (class_mask | ~class_mask.any(-1, keepdim=True)).unsqueeze(1)
