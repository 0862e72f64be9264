"""Relation networks as a Torch learner."""

from __future__ import annotations

from torch import Tensor, nn

from ..outer_loop import TaskState
from ._prototypes import PrototypeLearner


class RelationNet(PrototypeLearner):
    """Classifies by a learned comparison of a row with the mean of each class.

    A small network sees the embedding of the row and the mean embedding of a class
    and says how well they go together [1]_. The paper sums over the rows of a class
    and trains scores towards 0 and 1 by squared error; here the mean makes any number
    of shots alike, and scores are logits, trained by the outer loss.

    Parameters
    ----------
    backbone : nn.Module
        Embeds rows. Feature maps are flattened.
    n_features : int
        Width of the embedding.
    n_classes : int, default=None
        Size of a label space that all tasks share, see `PrototypeLearner`.
    width : int, default=64
        Units of the two hidden layers of the comparison.
    refine : int, default=0
        Steps of soft k-means on the query rows, see `PrototypeLearner`.

    References
    ----------
    .. [1] Sung, Yang, Zhang, Xiang, Torr and Hospedales. "Learning to compare:
       relation network for few-shot learning", CVPR 2018.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        width: int = 64,
        refine: int = 0,
    ):
        super().__init__(backbone, n_features, n_classes, refine)
        # One linear layer of the pair, in two halves: no pair is ever written out.
        self.of_row = nn.Linear(n_features, width)
        self.of_class = nn.Linear(n_features, width, bias=False)
        self.score = nn.Sequential(
            nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def compare(self, features: Tensor, prototypes: Tensor, state: TaskState) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``."""
        rows, classes = self.of_row(features), self.of_class(prototypes)
        return self.score(rows.unsqueeze(2) + classes.unsqueeze(1)).squeeze(-1)
