"""Matching networks as a Torch learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import Learner, TaskState, one_hot, only_existing, which_classes
from ..tasks._batch import TaskBatch


class MatchingNet(Learner):
    """Classifies by attention over the support rows: similar rows vote for their class.

    The attention of a query row to a support row is the softmax of a score of their
    embeddings; the probability of a class is the attention to its rows [1]_.

    Parameters
    ----------
    backbone : nn.Module
        Embeds rows.
    n_features : int
        Width of the embedding.
    n_classes : int, default=None
        Size of a label space that all tasks share. Each class then has a learned
        prior row with a learned weight, which votes in every task. None where labels
        exist only inside their task.
    metric : {"cosine", "euclidean"}, default="cosine"
        Scores are cosines with a learned scale, or negative squared distances.

    References
    ----------
    .. [1] Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra. "Matching networks
       for one shot learning", NeurIPS 2016.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        metric: str = "cosine",
    ):
        super().__init__(backbone)
        self.metric = metric
        if metric == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.shared = n_classes is not None
        if n_classes is not None:
            self.prior = nn.Parameter(0.1 * torch.randn(n_classes, n_features))
            self.log_strength = nn.Parameter(torch.zeros(()))

    def adapt(self, support: TaskBatch) -> TaskState:
        """Embedded rows, and their votes ``(n_tasks, n_rows, n_classes)``."""
        keys = self.embed(support)
        votes = one_hot(support, keys.dtype)
        if self.shared:
            n_tasks, n_classes = support.n_tasks, len(self.prior)
            prior = self.log_strength.exp() * torch.eye(n_classes).to(self.prior)
            keys = torch.cat([keys, self.prior.expand(n_tasks, -1, -1)], dim=1)
            votes = torch.cat([votes, prior.expand(n_tasks, -1, -1)], dim=1)
        if self.metric == "cosine":
            keys = nn.functional.normalize(keys, dim=-1)
        return {"keys": keys, "votes": votes, **which_classes(support, keys)}

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
        rows, keys = self.embed(query), state["keys"]
        if self.metric == "cosine":
            rows = self.log_scale.exp() * nn.functional.normalize(rows, dim=-1)
            scores = rows @ keys.transpose(1, 2)
        else:
            scores = 2 * rows @ keys.transpose(1, 2) - keys.square().sum(-1)[:, None]
        voters = (state["votes"].sum(-1) > 0).unsqueeze(1)
        scores = scores.masked_fill(~voters, -torch.inf)
        highest = scores.detach().amax(dim=-1, keepdim=True)
        attention = (scores - highest).exp() @ state["votes"]
        smallest = torch.finfo(attention.dtype).tiny
        logits = highest + attention.clamp(min=smallest).log()
        return only_existing(logits, state)
