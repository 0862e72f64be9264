"""Prototypes in two spaces: a learned one and that of the rows as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import TaskState
from ..tasks._batch import TaskBatch
from ._protonet_learner import ProtoNet
from ._prototypes import joined_means, weighted_members

#: Ids that words which training has not seen may have.
_N_NEW = 1024
#: Standard deviation of a normal prior of the (logarithmic) weights around their start.
PRIOR_STD = 2.0


class TfIdf(nn.Module):
    """Rows of token ids, their n-grams among them, as unit vectors of term weights.

    Parameters
    ----------
    n_known : int
        Ids of the training rows; 0 is padding and 1 unknown, which count for nothing.
        Higher ids are those of words that training has not seen.
    """

    weight: Tensor
    n_rows: Tensor
    within: Tensor

    def __init__(self, n_known: int):
        super().__init__()
        self.n_known = n_known
        self.width = n_known + _N_NEW
        self.register_buffer("weight", torch.ones(self.width))
        self.register_buffer("n_rows", torch.zeros(()))
        self.register_buffer("within", torch.zeros(self.width))

    def learn(self, X: Tensor) -> None:
        """Inverse document frequencies of all rows so far, smoothed as in sklearn."""
        for part in X.split(1024):
            counts = self._counts(part.to(self.within.device))
            self.within += (counts > 0).sum(dim=0)
        self.n_rows += len(X)
        self.weight.copy_(((1 + self.n_rows) / (1 + self.within)).log() + 1)
        self.weight[:2] = 0

    def forward(self, X: Tensor) -> Tensor:
        """Unit vectors of rows ``(n, length)`` or ``(n, length, 1 + n_parts)``."""
        counts = self._counts(X).to(self.weight)
        damped = torch.where(counts > 0, 1 + counts.clamp(min=1).log(), counts)
        return nn.functional.normalize(damped * self.weight, dim=-1)

    def _counts(self, X: Tensor) -> Tensor:
        ids = X.flatten(1).long()
        new = self.n_known + (ids - self.n_known).remainder(_N_NEW)
        ids = torch.where(ids < self.n_known, ids, new)
        counts = torch.zeros(len(X), self.width, device=X.device)
        return counts.scatter_add(1, ids, torch.ones_like(ids, dtype=counts.dtype))


class Centred(nn.Module):
    """Rows of numbers, standardised and of unit length.

    Parameters
    ----------
    n_inputs : int
        Numbers of a row.
    """

    n_rows: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, n_inputs: int):
        super().__init__()
        self.width = n_inputs
        self.register_buffer("n_rows", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("variance", torch.zeros(n_inputs))

    def learn(self, X: Tensor) -> None:
        """Mean and variance of all rows so far, joined as Chan et al. (1979) do."""
        flat = X.flatten(1).to(self.mean)
        self.n_rows += len(flat)
        share = len(flat) / self.n_rows
        moved = flat.mean(dim=0) - self.mean
        within = torch.lerp(self.variance, flat.var(dim=0, correction=0), share)
        self.variance.copy_(within + share * (1 - share) * moved.square())
        self.mean += share * moved

    @property
    def scale(self) -> Tensor:
        """Standard deviations; 1 where a feature is constant."""
        return torch.where(self.variance > 0, self.variance.sqrt(), 1.0)

    def forward(self, X: Tensor) -> Tensor:
        """Unit vectors of rows ``(n, *features)``."""
        centred = (X.flatten(1).to(self.mean) - self.mean) / self.scale
        return nn.functional.normalize(centred, dim=-1)


class DualProtoNet(ProtoNet):
    """Adds up the logits of prototypes in two spaces, with learned weights.

    Parameters
    ----------
    backbone : nn.Module
        Embeds rows.
    n_features : int
        Width of the embedding.
    raw : TfIdf or Centred
        Maps rows ``(n, *features)`` to unit vectors ``(n, raw.width)`` untrained.
    n_classes : int, default=None
        Size of a label space that all tasks share, see `ProtoNet`.
    refine : int, default=0
        Steps of soft k-means on the query rows, see `PrototypeLearner`: they join the
        class means of both spaces with the probabilities that both give together.
        Training takes none.
    """

    mixture: Tensor
    mixture_precision: Tensor
    n_judged: Tensor
    raw_prior: Tensor
    raw_counts: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        raw: TfIdf | Centred,
        n_classes: int | None = None,
        refine: int = 0,
    ):
        super().__init__(backbone, n_features, n_classes, refine=refine)
        self.raw = raw
        # Logarithms of the weights of learned and raw logits, and what the logarithm of
        # the number of shots adds to them; the outer loop does not train them.
        self.register_buffer("mixture", torch.tensor([0.0, 0.0, 2.3, 0.0]))
        # How sure they are, and the number of tasks that this was learned from.
        self.register_buffer("mixture_precision", torch.eye(4) / PRIOR_STD**2)
        self.register_buffer("n_judged", torch.zeros(()))
        if n_classes is not None:
            self.register_buffer("raw_prior", torch.zeros(n_classes, raw.width))
            self.register_buffer("raw_counts", torch.zeros(n_classes))

    def learn_raw(self, X: Tensor, y: Tensor) -> None:
        """Learn from more training rows what the raw space needs to know of them."""
        self.raw.learn(X)
        for c in range(len(self.raw_counts) if self.shared else 0):
            rows = self.raw(X[y == c].to(self.raw_prior.device))
            self.raw_counts[c] += len(rows)
            if len(rows):
                moved = rows.mean(dim=0) - self.raw_prior[c]
                self.raw_prior[c] += len(rows) / self.raw_counts[c] * moved

    def episode(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Query logits of the embedding alone: it is not to lean on the other space."""
        state = super().adapt(support)
        return super().logits(self.embed(query), state)

    def adapt(self, support: TaskBatch) -> TaskState:
        """Prototypes in both spaces, and the logarithm of the rows per class."""
        state = super().adapt(support)
        rows = self._raw(support)
        members = weighted_members(support, rows.dtype)
        sums, counts = members.transpose(1, 2) @ rows, members.sum(dim=1).unsqueeze(-1)
        present = (counts > 0).sum(dim=1).clamp(min=1)
        shots = (counts.sum(dim=1) / present).clamp(min=1)
        if self.shared:
            strength = self.log_strength.exp()
            sums, counts = sums + strength * self.raw_prior, counts + strength
        raw = sums / counts.masked_fill(counts == 0, 1)
        return state | {"raw": raw, "log_shots": shots.squeeze(-1).log()}

    def represent(self, query: TaskBatch) -> tuple[Tensor, Tensor]:
        """Rows in both spaces."""
        return self.embed(query), self._raw(query)

    def parts(
        self, rows: tuple[Tensor, Tensor], state: TaskState
    ) -> tuple[Tensor, Tensor]:
        """Logits of either space, before they are weighted."""
        learned, raw = rows
        directions = nn.functional.normalize(state["raw"], dim=-1)
        return super().logits(learned, state), raw @ directions.transpose(1, 2)

    def logits(self, rows: tuple[Tensor, Tensor], state: TaskState) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
        return self.mix(*self.parts(rows, state), state["log_shots"], self.mixture)

    def joined(
        self, rows: tuple[Tensor, Tensor], shares: Tensor, state: TaskState
    ) -> TaskState:
        """The state after rows have joined the class means of both spaces."""
        learned, raw = rows
        state = super().joined(learned, shares, state)
        return state | {"raw": joined_means(state["raw"], state["counts"], shares, raw)}

    @staticmethod
    def mix(learned: Tensor, raw: Tensor, log_shots: Tensor, mixture: Tensor) -> Tensor:
        """The weighted sum, by the number of shots of the task."""
        level, slope = mixture[0::2], mixture[1::2]
        weights = (level + slope * log_shots.unsqueeze(-1)).exp()[:, None, None]
        return weights[..., 0] * learned + weights[..., 1] * raw

    def _raw(self, batch: TaskBatch) -> Tensor:
        flat = self.raw(batch.X.flatten(0, 1))
        rows = flat.unflatten(0, batch.X.shape[:2])
        return rows if batch.mask is None else rows * batch.mask.unsqueeze(-1)
