"""One vector for each class: what learners that compare rows with classes share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..outer_loop import Learner, TaskState, one_hot, only_existing, which_classes
from ..tasks._batch import TaskBatch


class PrototypeLearner(Learner):
    """Adapts by class means; a subclass compares rows with them.

    Parameters
    ----------
    backbone : nn.Module
        Embeds rows.
    n_features : int
        Width of the embedding.
    n_classes : int, default=None
        Size of a label space that all tasks share. Each class then has a prior
        prototype, which counts as a number of support rows. None where labels exist
        only inside their task.
    refine : int, default=0
        Steps of soft k-means on the query rows of a task: they join the class means
        with the probabilities that they have for now [1]_. A prediction then depends
        on the other query rows.

    References
    ----------
    .. [1] Ren et al. "Meta-learning for semi-supervised few-shot classification",
       ICLR 2018.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        refine: int = 0,
    ):
        super().__init__(backbone)
        self.refine = refine
        self.shared = n_classes is not None
        if n_classes is not None:
            self._make_prior(n_classes, n_features)

    def _make_prior(self, n_classes: int, n_features: int) -> None:
        """Prior prototypes and their strength, which training learns."""
        self.prior = nn.Parameter(0.1 * torch.randn(n_classes, n_features))
        self.log_strength = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def compare(self, features: Tensor, prototypes: Tensor, state: TaskState) -> Tensor:
        """Logits of features ``(n_tasks, n_rows, n_features)``, of every class."""

    def shape_of_classes(
        self, features: Tensor, members: Tensor, support: TaskBatch
    ) -> TaskState:
        """What `compare` needs beside the class means: nothing."""
        return {}

    def adapt(self, support: TaskBatch) -> TaskState:
        """Prototypes ``(n_tasks, n_classes, n_features)``."""
        features = self.embed(support)
        members = weighted_members(support, features.dtype)
        sums = members.transpose(1, 2) @ features
        counts = members.sum(dim=1).unsqueeze(-1)
        if self.shared:
            strength = self.log_strength.exp()
            sums, counts = sums + strength * self.prior, counts + strength
            prototypes = sums / counts
        else:
            prototypes = sums / counts.masked_fill(counts == 0, 1)
        state = {"prototypes": prototypes, **which_classes(support, prototypes)}
        state.update(self.shape_of_classes(features, members, support))
        if self.refine:
            state["counts"] = counts
        return state

    def represent(self, query: TaskBatch) -> Any:
        """What is known of query rows; `logits` and `joined` take it."""
        return self.embed(query)

    def logits(self, rows: Any, state: TaskState) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
        logits = self.compare(rows, state["prototypes"], state)
        return only_existing(logits, state)

    def joined(self, rows: Any, shares: Tensor, state: TaskState) -> TaskState:
        """The state after rows have joined each class with their shares in it."""
        prototypes = joined_means(state["prototypes"], state["counts"], shares, rows)
        return {**state, "prototypes": prototypes}

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
        rows = self.represent(query)
        logits = self.logits(rows, state)
        for _ in range(self.refine):
            shares = logits.softmax(dim=-1)
            shares = shares * query.weights.to(shares.dtype).unsqueeze(-1)
            logits = self.logits(rows, self.joined(rows, shares, state))
        return logits


def weighted_members(support: TaskBatch, dtype: torch.dtype) -> Tensor:
    """Weight of every support row in each class ``(n_tasks, n_rows, n_classes)``."""
    members = one_hot(support, dtype)
    if support.sample_weight is None:
        return members
    return members * support.sample_weight.unsqueeze(-1)


def joined_means(means: Tensor, counts: Tensor, shares: Tensor, rows: Tensor) -> Tensor:
    """Class means after rows have joined those that made them.

    Parameters
    ----------
    means : Tensor of shape (n_tasks, n_classes, n_features)
        Means so far.
    counts : Tensor of shape (n_tasks, n_classes, 1)
        Rows that made them.
    shares : Tensor of shape (n_tasks, n_rows, n_classes)
        Share of each row in every class.
    rows : Tensor of shape (n_tasks, n_rows, n_features)
        The rows that join.

    Returns
    -------
    Tensor of shape (n_tasks, n_classes, n_features)
    """
    sums = counts * means + shares.transpose(1, 2) @ rows
    counts = counts + shares.sum(dim=1).unsqueeze(-1)
    # A class that a task does not have has no rows at all.
    return sums / counts.clamp(min=torch.finfo(sums.dtype).tiny)
