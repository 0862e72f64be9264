"""SimpleShot as a Torch learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import TaskState
from ..tasks._batch import TaskBatch
from ._prototypes import PrototypeLearner

#: Logits of unit vectors are this many times the negative squared distance.
_SCALE = 10.0


class SimpleShot(PrototypeLearner):
    """Classifies by the distance to class means of centred features of unit length.

    Nothing in it is learned by episodes: the backbone comes as it is, the mean of all
    training features is subtracted, rows are scaled to unit length [1]_.

    Parameters
    ----------
    backbone : nn.Module
        Embeds rows.
    n_features : int
        Width of the embedding.
    n_classes : int, default=None
        Size of a label space that all tasks share. The mean of each class over all
        training rows then counts as one more row. None where labels exist only inside
        their task.
    refine : int, default=0
        Steps of soft k-means on the query rows, see `PrototypeLearner`.

    References
    ----------
    .. [1] Wang, Chao, Weinberger and van der Maaten. "SimpleShot: revisiting
       nearest-neighbor classification for few-shot learning", arXiv:1911.04623, 2019.
    """

    mean: Tensor
    n_seen: Tensor
    n_seen_of_class: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        refine: int = 0,
    ):
        super().__init__(backbone, n_features, n_classes, refine)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("n_seen", torch.zeros(()))

    def _make_prior(self, n_classes: int, n_features: int) -> None:
        self.register_buffer("prior", torch.zeros(n_classes, n_features))
        self.register_buffer("log_strength", torch.zeros(()))
        self.register_buffer("n_seen_of_class", torch.zeros(n_classes, 1))

    def embed(self, batch: TaskBatch) -> Tensor:
        """Centred features of unit length, zeros for padding."""
        features = nn.functional.normalize(super().embed(batch) - self.mean, dim=-1)
        return features * batch.weights.to(features.dtype).unsqueeze(-1)

    def compare(self, features: Tensor, prototypes: Tensor, state: TaskState) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``."""
        logits = 2 * features @ prototypes.transpose(1, 2)
        return _SCALE * (logits - prototypes.square().sum(-1).unsqueeze(1))

    def see(self, features: Tensor, y: Tensor) -> None:
        """Take training features into the mean, and into those of shared classes.

        Parameters
        ----------
        features : Tensor of shape (n_rows, n_features)
            What the backbone gives.
        y : int64 Tensor of shape (n_rows,)
            Classes; they count where all tasks share them.
        """
        n_seen = self.n_seen + len(features)
        self.mean += (features - self.mean).sum(dim=0) / n_seen
        self.n_seen.copy_(n_seen)
        if not self.shared:
            return
        rows = nn.functional.normalize(features - self.mean, dim=-1)
        members = nn.functional.one_hot(y, len(self.prior)).to(rows.dtype)
        counts = self.n_seen_of_class + members.sum(dim=0).unsqueeze(-1)
        sums = self.n_seen_of_class * self.prior + members.T @ rows
        self.prior.copy_(sums / counts.clamp(min=1))
        self.n_seen_of_class.copy_(counts)
