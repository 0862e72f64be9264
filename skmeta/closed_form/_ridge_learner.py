"""A closed-form linear head on learned features, as a Torch learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import Learner, TaskState, one_hot, only_existing, which_classes
from ..tasks._batch import TaskBatch

#: The regularisation ranges over decades, so it is learned faster than weights are.
_ALPHA_GAIN = 5.0


class RidgeHead(Learner):
    """Ridge regression on learned features, solved exactly inside each episode.

    The weights of a task have a Gaussian prior around learned prior weights. For
    regression the state holds their posterior; for classification their mean, fitted
    to one-hot targets.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features.
    n_features : int
        Number of features; a constant one is added.
    n_classes : int, default=None
        Size of a label space that all tasks share; None for regression and for labels
        that exist only inside their task, whose prior weights are zero.
    classifier : bool, default=False
        Whether targets are classes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int | None = None,
        classifier: bool = False,
    ):
        super().__init__(backbone)
        self.classifier = classifier
        self.log_alpha = nn.Parameter(torch.tensor(-2.0 / _ALPHA_GAIN))
        self.prior: nn.Parameter | None = None
        if n_classes is not None or not classifier:
            width = n_classes if n_classes is not None else 1
            self.prior = nn.Parameter(torch.zeros(n_features + 1, width))
        if classifier:
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        # Variance of the noise, which the squared loss cannot tell; estimated once
        # the features are trained.
        self.register_buffer("noise", torch.ones(()))

    def adapt(self, support: TaskBatch) -> TaskState:
        """Weights ``(n_tasks, n_features + 1, n_outputs)`` of every task.

        For regression also a basis ``(n_tasks, at most n_features + 1, n_features +
        1)`` of what the support has told of them, ``B' B = I - alpha S`` for a
        posterior covariance of ``S`` times the noise.
        """
        features = self._features(support)
        targets = self._targets(support, features)
        if self.prior is not None:
            present = support.weights.to(features.dtype).unsqueeze(-1)
            targets = targets - present * (features @ self.prior)
        if support.sample_weight is not None:
            root = support.sample_weight.sqrt().unsqueeze(-1)
            features, targets = root * features, root * targets
        alpha = self.alpha
        few = features.shape[1] < features.shape[2]
        solve = _solve_rows if few else _solve_features
        # The basis is needed for standard deviations alone, never in training.
        probabilistic = not (self.classifier or self.training)
        weights, basis = solve(features, targets, alpha, probabilistic)
        if self.prior is not None:
            weights = weights + self.prior
        state = {"weights": weights, **which_classes(support, weights)}
        if basis is not None:
            state["basis"] = basis
        return state

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""
        output = self._features(query) @ state["weights"]
        if not self.classifier:
            return output.squeeze(-1)
        return only_existing(self.log_scale.exp() * output, state)

    def leverage(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Posterior variance of the mean of each row over that of the noise."""
        features = self._features(query)
        told = features @ state["basis"].transpose(1, 2)
        left = features.square().sum(-1) - told.square().sum(-1)
        return left.clamp(min=0) / self.alpha

    @property
    def alpha(self) -> Tensor:
        """Noise variance over the prior variance of a weight."""
        return (_ALPHA_GAIN * self.log_alpha).exp()

    def _features(self, batch: TaskBatch) -> Tensor:
        """Features and a constant; rows of padding are zero throughout."""
        features = self.embed(batch)
        # Unit variance per row, whatever the width: alpha then has one scale.
        features = features / features.shape[-1] ** 0.5
        present = batch.weights.to(features.dtype).unsqueeze(-1)
        return torch.cat([features, present], dim=-1)

    def _targets(self, support: TaskBatch, features: Tensor) -> Tensor:
        if self.classifier:
            return one_hot(support, features.dtype)
        assert support.y is not None
        return support.y.unsqueeze(-1) * support.weights.to(features.dtype).unsqueeze(
            -1
        )


Solved = tuple[Tensor, Tensor | None]


def _solve_features(
    features: Tensor, targets: Tensor, alpha: Tensor, probabilistic: bool
) -> Solved:
    """Ridge weights by the normal equations, and the basis where it is asked for."""
    eye = torch.eye(features.shape[2], dtype=features.dtype, device=features.device)
    gram = features.transpose(1, 2) @ features
    factor = _cholesky(gram + alpha * eye)
    weights = torch.cholesky_solve(features.transpose(1, 2) @ targets, factor)
    if not probabilistic:
        return weights, None
    # Unlike Cholesky's, this raises for the batch where one task has diverged.
    diverged = ~gram.isfinite().flatten(1).all(dim=1)[:, None, None]
    values, vectors = torch.linalg.eigh(gram.masked_fill(diverged, 0))
    values = values.clamp(min=0)
    share = (values / (values + alpha)).sqrt()
    basis = (vectors * share.unsqueeze(1)).transpose(1, 2)
    return weights, basis.masked_fill(diverged, torch.nan)


def _solve_rows(
    features: Tensor, targets: Tensor, alpha: Tensor, probabilistic: bool
) -> Solved:
    """The same by the rows: much less to do where support is small (Woodbury)."""
    eye = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    kernel = features @ features.transpose(1, 2)
    factor = _cholesky(kernel + alpha * eye)
    weights = features.transpose(1, 2) @ torch.cholesky_solve(targets, factor)
    if not probabilistic:
        return weights, None
    return weights, torch.linalg.solve_triangular(factor, features, upper=False)


def _cholesky(matrices: Tensor) -> Tensor:
    """Lower factors; NaN instead of an error for a task that has diverged."""
    factor, failed = torch.linalg.cholesky_ex(matrices)
    return factor.masked_fill(failed.bool()[:, None, None], torch.nan)
