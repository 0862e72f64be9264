"""Prototypical networks as a Torch learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import Learner, TaskState, one_hot
from ..tasks._batch import TaskBatch


class ProtoNet(Learner):
    """Classifies by the distance to the mean embedding of each class.

    Parameters
    ----------
    backbone : nn.Module
        Embeds rows.
    n_features : int
        Width of the embedding.
    n_classes : int, default=None
        Size of a label space that all tasks share. Each class then has a learned
        prior prototype, which counts as a learned number of support rows. None where
        labels exist only inside their task.
    metric : {"euclidean", "cosine"}, default="euclidean"
        Logits are negative squared distances, or scaled cosines with learned scale.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        metric: str = "euclidean",
    ):
        super().__init__(backbone)
        self.metric = metric
        if metric == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        if n_classes is not None:
            self.prior = nn.Parameter(0.1 * torch.randn(n_classes, n_features))
            self.log_strength = nn.Parameter(torch.zeros(()))
        self.shared = n_classes is not None

    def adapt(self, support: TaskBatch) -> TaskState:
        """Prototypes ``(n_tasks, n_classes, n_features)``."""
        features = self.embed(support)
        members = one_hot(support, features.dtype)
        if support.sample_weight is not None:
            members = members * support.sample_weight.unsqueeze(-1)
        sums = members.transpose(1, 2) @ features
        counts = members.sum(dim=1).unsqueeze(-1)
        if self.shared:
            strength = self.log_strength.exp()
            prototypes = (sums + strength * self.prior) / (counts + strength)
        else:
            prototypes = sums / counts.masked_fill(counts == 0, 1)
        state = {"prototypes": prototypes}
        if support.class_mask is not None:
            state["exists"] = support.class_mask.to(prototypes.dtype)
        return state

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
        features, prototypes = self.embed(query), state["prototypes"]
        if self.metric == "cosine":
            features = nn.functional.normalize(features, dim=-1)
            prototypes = nn.functional.normalize(prototypes, dim=-1)
            logits = self.log_scale.exp() * features @ prototypes.transpose(1, 2)
        else:
            # The squared norm of the row is the same for every class.
            logits = 2 * features @ prototypes.transpose(1, 2)
            logits = logits - prototypes.square().sum(-1).unsqueeze(1)
        if "exists" in state:
            logits = logits.masked_fill(state["exists"].unsqueeze(1) == 0, -torch.inf)
        return logits
