"""Prototypical networks as a Torch learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import TaskState
from ..tasks._batch import TaskBatch
from ._prototypes import PrototypeLearner


class ProtoNet(PrototypeLearner):
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
    metric : {"euclidean", "cosine", "mahalanobis"}, default="euclidean"
        Logits are negative squared distances, scaled cosines with learned scale, or
        half the negative squared distances under the covariance of each class. The
        latter is ``w S_class + (1 - w) S_task + r``, with weight ``w = n / (n + 1)``
        for a class of n rows and a learned ridge r [1]_.
    refine : int, default=0
        Steps of soft k-means on the query rows, see `PrototypeLearner`.

    References
    ----------
    .. [1] Bateni, Goyal, Masrani, Wood and Sigal. "Improved few-shot visual
       classification", CVPR 2020.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        metric: str = "euclidean",
        refine: int = 0,
    ):
        super().__init__(backbone, n_features, n_classes, refine)
        self.metric = metric
        if metric == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        elif metric == "mahalanobis":
            self.log_ridge = nn.Parameter(torch.zeros(()))

    def compare(self, features: Tensor, prototypes: Tensor, state: TaskState) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``."""
        if self.metric == "cosine":
            features = nn.functional.normalize(features, dim=-1)
            prototypes = nn.functional.normalize(prototypes, dim=-1)
            return self.log_scale.exp() * features @ prototypes.transpose(1, 2)
        if self.metric == "mahalanobis":
            # (n_tasks, n_classes, n_rows, n_features): a white space for each class.
            inverse = state["inverse"].transpose(2, 3)
            rows = features.unsqueeze(1) @ inverse
            gap = rows - prototypes.unsqueeze(2) @ inverse
            return -gap.square().sum(-1).transpose(1, 2) / 2
        # The squared norm of the row is the same for every class.
        logits = 2 * features @ prototypes.transpose(1, 2)
        return logits - prototypes.square().sum(-1).unsqueeze(1)

    def shape_of_classes(
        self, features: Tensor, members: Tensor, support: TaskBatch
    ) -> TaskState:
        """Inverse Cholesky factor of the covariance of each class."""
        if self.metric != "mahalanobis":
            return {}
        counts = members.sum(dim=1)
        of_task = _covariance(features, members.sum(dim=-1).unsqueeze(1))
        of_class = _covariance(features, members.transpose(1, 2))
        weight = (counts / (counts + 1))[..., None, None]
        eye = torch.eye(
            features.shape[-1], dtype=features.dtype, device=features.device
        )
        covariance = weight * of_class + (1 - weight) * of_task
        covariance = covariance + self.log_ridge.exp() * eye
        # Unlike an error, NaN leaves out the task that has diverged alone.
        factor, failed = torch.linalg.cholesky_ex(covariance)
        factor = factor.masked_fill(failed.bool()[..., None, None], torch.nan)
        eye = eye.expand_as(factor)
        return {"inverse": torch.linalg.solve_triangular(factor, eye, upper=False)}


def _covariance(features: Tensor, members: Tensor) -> Tensor:
    """Covariances of groups of rows; zero for a group without any.

    Parameters
    ----------
    features : Tensor of shape (n_tasks, n_rows, n_features)
        Rows.
    members : Tensor of shape (n_tasks, n_groups, n_rows)
        Weights of the rows of a group, 0 for all others.

    Returns
    -------
    Tensor of shape (n_tasks, n_groups, n_features, n_features)
    """
    share = members / members.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = share @ features
    centred = features.unsqueeze(1) - mean.unsqueeze(2)
    return (share.unsqueeze(-1) * centred).transpose(2, 3) @ centred
