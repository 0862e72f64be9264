"""Gaussian processes on learned features, as Torch learners."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..outer_loop import (
    DensityLearner,
    Learner,
    TaskState,
    one_hot,
    only_existing,
    which_classes,
)
from ..tasks._batch import TaskBatch
from ._ridge_learner import _cholesky

#: Kernel parameters range over decades, so they are learned faster than weights are.
_GAIN = 5.0
#: Keeps covariances in single precision well away from singular; targets have a
#: variance of about 1.
_MIN_NOISE = 1e-4


class GaussianProcess(Learner):
    """Exact posterior of a Gaussian process on learned features, for each task.

    Several outputs have one kernel and independent posteriors, which share their
    covariance.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features.
    kernel : {"rbf", "matern", "linear"}, default="rbf"
        Squared exponential, Matern with smoothness 5/2, or inner product.
    n_outputs : int, default=1
        Learned prior means; a single one is that of every output.
    """

    def __init__(self, backbone: nn.Module, kernel: str = "rbf", n_outputs: int = 1):
        super().__init__(backbone)
        self.kernel = kernel
        self.mean = nn.Parameter(torch.zeros(n_outputs))
        self.raw_length = nn.Parameter(torch.zeros(()))
        self.raw_variance = nn.Parameter(torch.zeros(()))
        self.raw_noise = nn.Parameter(torch.tensor(math.log(0.05) / _GAIN))

    @property
    def length_scale(self) -> Tensor:
        """Length scale; of the linear kernel the offset, as scikit-learn's sigma_0."""
        return (_GAIN * self.raw_length).exp()

    @property
    def variance(self) -> Tensor:
        """Factor of the kernel."""
        return (_GAIN * self.raw_variance).exp()

    @property
    def noise(self) -> Tensor:
        """Variance of the noise."""
        return _MIN_NOISE + (_GAIN * self.raw_noise).exp()

    def adapt(self, support: TaskBatch) -> TaskState:
        """The posterior of every task, from its rows.

        Features ``(n_tasks, n_rows, n_features)``, their weights ``(n_tasks, n_rows,
        n_outputs)`` in the means, and the inverse ``(n_tasks, n_rows, n_rows)`` of the
        Cholesky factor of their covariance. The latter two are zero for padding.
        """
        state = self.inform(support)
        inverse = state["inverse"]
        residual = self._targets(support) - self.mean
        weights = inverse.transpose(1, 2) @ (inverse @ residual)
        return {**state, "row_weights": weights}

    def inform(self, support: TaskBatch) -> TaskState:
        """What `adapt` finds without labels: all that the covariance depends on."""
        features = self._features(support)
        present = support.weights.to(features.dtype)
        factor = self._factor(features, present)
        eye = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        return {"features": features, "inverse": inverse * present.unsqueeze(1)}

    def moments(self, state: TaskState, query: TaskBatch) -> tuple[Tensor, Tensor]:
        """Means ``(n_tasks, n_rows, n_outputs)`` and variances ``(n_tasks, n_rows)``.

        The variances are those of new observations, noise included.
        """
        features = self._features(query)
        cross = self.covariance(features, state["features"])
        told = (cross @ state["inverse"].transpose(1, 2)).square().sum(-1)
        left = (self._diagonal(features) - told).clamp(min=0)
        return self.mean + cross @ state["row_weights"], left + self.noise

    def posterior_covariance(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Covariance of the rows without noise: ``(n_tasks, n_rows, n_rows)``."""
        features = self._features(query)
        cross = self.covariance(features, state["features"])
        told = cross @ state["inverse"].transpose(1, 2)
        return self.covariance(features, features) - told @ told.transpose(1, 2)

    def covariance(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Kernel between features of the rows of each task."""
        scale = self.length_scale
        if self.kernel == "linear":
            return self.variance * (rows @ columns.transpose(1, 2) + scale.square())
        # By products of matrices, small distances would be lost to cancellation.
        distance = torch.cdist(
            rows, columns, compute_mode="donot_use_mm_for_euclid_dist"
        )
        if self.kernel == "rbf":
            return self.variance * (-(distance / scale).square() / 2).exp()
        ratio = math.sqrt(5) * distance / scale
        return self.variance * (1 + ratio + ratio.square() / 3) * (-ratio).exp()

    def _diagonal(self, features: Tensor) -> Tensor:
        if self.kernel == "linear":
            norm = features.square().sum(-1)
            return self.variance * (norm + self.length_scale.square())
        return self.variance.expand(features.shape[:2])

    def _features(self, batch: TaskBatch) -> Tensor:
        features = self.embed(batch)
        # Unit variance per row, whatever the width: the length has then one scale.
        return features / features.shape[-1] ** 0.5

    def _factor(self, features: Tensor, present: Tensor) -> Tensor:
        """Cholesky factors of the covariance of targets; identity for padding."""
        kernel = self.covariance(features, features)
        kernel = kernel * present.unsqueeze(1) * present.unsqueeze(2)
        noise = torch.where(present > 0, self.noise, 1.0)
        return _cholesky(kernel + torch.diag_embed(noise))

    def _targets(self, batch: TaskBatch) -> Tensor:
        """Targets as numbers, ``(n_tasks, n_rows, n_outputs)``."""
        assert batch.y is not None
        return batch.y.unsqueeze(-1)


class DeepKernel(GaussianProcess, DensityLearner):
    """Deep kernel transfer: trained by the marginal likelihood of whole tasks [1]_.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features.
    kernel : {"rbf", "matern", "linear"}, default="rbf"
        Squared exponential, Matern with smoothness 5/2, or inner product.

    References
    ----------
    .. [1] Patacchiola et al. "Bayesian meta-learning for the few-shot setting via deep
       kernels", NeurIPS 2020.
    """

    def __init__(self, backbone: nn.Module, kernel: str = "rbf"):
        super().__init__(backbone, kernel)

    def density(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Posterior mean and deviation, noise included: ``(n_tasks, n_rows, 2)``."""
        mean, variance = self.moments(state, query)
        return torch.stack([mean.squeeze(-1), variance.sqrt()], dim=-1)

    def episode(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Each query row given the support and the query rows before it.

        By the chain rule, the log-densities of the rows sum to that of all of them
        together: to the marginal likelihood, where there are no support rows. The
        Cholesky factor ``L`` holds every term, since row ``i`` has the deviation
        ``L[i, i]`` given the rows above it.
        """
        rows = support.append(query)
        features = self._features(rows)
        present = rows.weights.to(features.dtype)
        factor = self._factor(features, present)
        residual = (self._targets(rows) - self.mean) * present.unsqueeze(-1)
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        std = factor.diagonal(dim1=1, dim2=2)
        assert rows.y is not None
        density = torch.stack([rows.y - std * whitened.squeeze(-1), std], dim=-1)
        return density[:, support.X.shape[1] :]


class DeepKernelClassification(GaussianProcess):
    """Gaussian process regression on labels of 1 and -1, one class against the rest.

    Logits are the log-odds of a new label, ``log N(1; m, v) - log N(-1; m, v) = 2 m /
    v``, so that their softmax is the probability of each class given that exactly one
    of the labels is 1.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features.
    kernel : {"rbf", "matern", "linear"}, default="rbf"
        Squared exponential, Matern with smoothness 5/2, or inner product.
    n_classes : int, default=None
        Size of a label space that all tasks share, each class with a prior mean of its
        own; None where labels exist only inside their task.
    """

    def __init__(
        self, backbone: nn.Module, kernel: str = "rbf", n_classes: int | None = None
    ):
        super().__init__(backbone, kernel, n_classes or 1)

    def adapt(self, support: TaskBatch) -> TaskState:
        """The posterior of every task, and which classes it has."""
        state = super().adapt(support)
        return {**state, **which_classes(support, state["row_weights"])}

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)``, -inf for classes not in the task."""
        mean, variance = self.moments(state, query)
        return only_existing(2 * mean / variance.unsqueeze(-1), state)

    def _targets(self, batch: TaskBatch) -> Tensor:
        return 2 * one_hot(batch, self.mean.dtype) - 1
