"""A Gaussian lower bound of the likelihood of logistic tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_expit

from ._evidence import marginalise, shared_mean
from ._gaussian import conditional
from ._laplace import indicators
from ._optimise import Problem, summed_evidence
from ._statistics import Statistics, accumulate, padded_blocks, shifted


@dataclass(frozen=True)
class LogisticData:
    """Rows in long format with their tasks and class indicators.

    `center` of shape (n_columns, n_features) are the weights towards which the means
    of the columns are shrunk.
    """

    features: np.ndarray
    labels: np.ndarray
    codes: np.ndarray
    n_tasks: int
    n_classes: int
    center: np.ndarray

    @property
    def target(self) -> np.ndarray:
        return indicators(self.labels, self.n_classes)

    def rows(self, tasks) -> np.ndarray:
        """Mask of the rows of some tasks; None means all of them."""
        chosen = np.full(self.n_tasks, tasks is None)
        chosen[slice(0) if tasks is None else tasks] = True
        return chosen[self.codes]

    def columns(self, columns) -> LogisticData:
        """The same rows with some of the features."""
        return replace(
            self, features=self.features[:, columns], center=self.center[:, columns]
        )

    def take(self, tasks) -> LogisticData:
        """Rows of some tasks, which are renumbered; None means all of them."""
        if tasks is None:
            return self
        number = np.empty(self.n_tasks, dtype=int)
        number[tasks] = np.arange(len(tasks))
        rows = self.rows(tasks)
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            codes=number[self.codes[rows]],
            n_tasks=len(tasks),
        )


def bound_weight(bound: np.ndarray) -> np.ndarray:
    """Curvature of the quadratic that touches the log-likelihood at ``+-bound``."""
    safe = np.maximum(np.abs(bound), 1e-8)
    return np.tanh(safe / 2) / (2 * safe)


def expand(data: LogisticData, bound: np.ndarray) -> list[Statistics]:
    """Statistics of the quadratic bound, one set of tasks for each column.

    They are those of the deviation from `center`. Energies start from zero, since
    `bound_value` puts the constants of the bound back.
    """
    weight, zero = bound_weight(bound), np.zeros(data.n_tasks)
    working = (data.target - 0.5) / weight
    parts = []
    for y, w, center in zip(working.T, weight.T, data.center, strict=True):
        part = accumulate(data.features, y, data.codes, data.n_tasks, w)
        part = Statistics(part.gram, part.cross, zero, part.count)
        parts.append(shifted(part, center))
    return parts


def bound_value(problem: Problem, theta: np.ndarray, bound: np.ndarray) -> float:
    """Lower bound of the log marginal likelihood of all columns."""
    value = summed_evidence(problem.parts, *problem.unpack(theta))[0]
    constant = log_expit(bound) - bound / 2 + bound_weight(bound) * bound**2 / 2
    weight = sum(part.count.sum() for part in problem.parts)
    return float(value + 0.5 * np.log(2 * np.pi) * weight + constant.sum())


def tighten(data, variances, bound, n_steps=2):
    """Move the touching points to the root mean square of the logits."""
    factor, _, ridge = variances
    for _ in range(n_steps):
        parts = expand(data, bound)
        fits = [moments(data, k, part, factor, ridge) for k, part in enumerate(parts)]
        bound = np.sqrt(np.column_stack([second for _, _, second in fits]))
    return bound


def moments(data, column, part, factor, ridge):
    """Posterior of the mean of a column, and second moments of its logits."""
    precision, score, *_ = marginalise(part, factor, 1.0)
    mean, mean_cov, _ = shared_mean(precision.sum(0), score.sum(0), ridge)
    center = data.center[column]
    latent, _ = conditional(factor, 1.0, part.gram, part.cross - part.gram @ mean)
    weights = center + mean + latent @ factor.T
    between = factor @ factor.T
    keep = np.eye(len(mean)) - between @ precision
    cov = between - between @ precision @ between
    cov += keep @ mean_cov @ keep.swapaxes(1, 2)
    cov += weights[:, :, None] * weights[:, None, :]
    second = np.empty(len(data.codes))
    width = 2 * len(mean)
    for tasks, rows, mask in padded_blocks(data.codes, data.n_tasks, width):
        block = data.features[rows]
        second[rows[mask]] = (np.matmul(block, cov[tasks]) * block).sum(2)[mask]
    return center + mean, mean_cov, np.maximum(second, 0)
