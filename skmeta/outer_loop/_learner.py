"""What a meta-learning algorithm is: two functions over a task axis."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..tasks._batch import TaskBatch

TaskState = dict[str, Tensor]


class Learner(nn.Module, ABC):
    """A meta-learning algorithm over a Torch backbone.

    ``adapt`` turns the support rows of several tasks into a state, ``predict`` turns
    a state and query rows into outputs. Both are differentiable with respect to the
    parameters of the learner, so that the outer loop is the same for every
    algorithm: ``loss(predict(adapt(support), query))``.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows ``(n_rows, *features)`` to features; more than one output axis is
        flattened.
    """

    #: False where an algorithm adapts with gradients (its state is large, so it is
    #: recomputed rather than kept once a fleet exceeds the memory bound).
    closed_form: bool = True

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    @abstractmethod
    def adapt(self, support: TaskBatch) -> TaskState:
        """State of every task; each tensor has a leading axis of ``n_tasks``.

        A task without real rows must give the state of the prior: what is predicted
        for a task of which nothing is known yet.
        """

    @abstractmethod
    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""

    def episode(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Query predictions for training; override to change the meta-gradient."""
        return self.predict(self.adapt(support), query)

    def begin_step(self) -> None:
        """Called before every step of training; for what changes in its course."""

    def embed(self, batch: TaskBatch) -> Tensor:
        """Features of real rows, zeros for padding: ``(n_tasks, n_rows, n_features)``.

        Padding never enters the backbone, so statistics over rows (batch norm) see
        real rows only.
        """
        n_tasks, n_rows = batch.X.shape[:2]
        if batch.mask is None:
            flat = self.backbone(batch.X.flatten(0, 1)).flatten(1)
            return flat.unflatten(0, (n_tasks, n_rows))
        real = self.backbone(batch.X[batch.mask]).flatten(1)
        features = real.new_zeros(n_tasks, n_rows, real.shape[1])
        return features.masked_scatter(
            batch.mask.unsqueeze(-1).expand_as(features), real
        )


def which_classes(support: TaskBatch, like: Tensor) -> TaskState:
    """State entry that says which classes each task has; none where all have all."""
    if support.class_mask is None:
        return {}
    return {"exists": support.class_mask.to(like.dtype)}


def only_existing(logits: Tensor, state: TaskState) -> Tensor:
    """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
    if "exists" not in state:
        return logits
    return logits.masked_fill(state["exists"].unsqueeze(1) == 0, -torch.inf)


def one_hot(batch: TaskBatch, dtype: torch.dtype) -> Tensor:
    """Class membership of real rows, ``(n_tasks, n_rows, n_classes)``; padding is 0."""
    assert batch.y is not None and batch.n_classes is not None
    hot = nn.functional.one_hot(batch.y, batch.n_classes).to(dtype)
    return hot if batch.mask is None else hot * batch.mask.unsqueeze(-1)
