"""Gaussian stand-ins for the likelihood of logistic and softmax tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_expit

from ._evidence import marginalise, shared_mean, whiten
from ._gaussian import conditional
from ._laplace import (
    averaged_probabilities,
    indicators,
    log_likelihood,
    probabilities,
)
from ._optimise import Problem, summed_evidence
from ._statistics import Statistics, accumulate, padded_blocks


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


def quadratic_of(data: LogisticData) -> Quadratic:
    """Where the approximation of the likelihood starts from."""
    shape = data.target.shape
    if shape[1] == 1:
        return LogisticBound(data, np.ones(shape))
    return SoftmaxExpansion(data, data.features @ data.center.T)


@dataclass(frozen=True)
class Quadratic:
    """Quadratic approximation of the log-likelihood of every row.

    Makes the tasks linear-Gaussian with unit noise: sets of tasks, one for each column
    of `points`, with the same variances between tasks and a mean of their own.

    Parameters
    ----------
    data : LogisticData
        Rows.
    points : ndarray of shape (n_rows, n_columns)
        Logits around which it is taken.
    """

    data: LogisticData
    points: np.ndarray

    def take(self, tasks) -> Quadratic:
        """The approximation of the rows of some tasks."""
        rows = self.data.rows(tasks)
        return replace(self, data=self.data.take(tasks), points=self.points[rows])

    def value(self, problem: Problem, theta: np.ndarray) -> float:
        """Log marginal likelihood of all rows, as far as the approximation goes."""
        value = summed_evidence(problem.parts, *problem.unpack(theta))[0]
        weight = sum(part.count.sum() for part in problem.parts)
        return float(value + 0.5 * np.log(2 * np.pi) * weight + self.constant().sum())

    def parts(self) -> list[Statistics]:
        """Statistics of the deviation of every column from its center.

        Energies start from zero, since `value` puts the constants back.
        """
        data, zero, weight = self.data, np.zeros(self.data.n_tasks), self.weight()
        working = self.score() / weight
        parts = []
        for y, w, center in zip(working.T, weight.T, data.center, strict=True):
            part = accumulate(data.features, y, data.codes, data.n_tasks, w)
            part = Statistics(part.gram, part.cross, zero, part.count)
            parts.append(part.shifted(center))
        return parts


class LogisticBound(Quadratic):
    """Two classes: a lower bound that touches at plus and minus each point [1]_.

    Unlike the Laplace approximation it does not reward a prior so wide that it
    separates every task by itself.

    References
    ----------
    .. [1] T. S. Jaakkola and M. I. Jordan, "Bayesian parameter estimation via
       variational methods", Statistics and Computing 10 (2000), 25-37.
    """

    def weight(self) -> np.ndarray:
        """Curvature of the bound."""
        safe = np.maximum(np.abs(self.points), 1e-8)
        return np.tanh(safe / 2) / (2 * safe)

    def constant(self) -> np.ndarray:
        """What the statistics leave out."""
        points = self.points
        return log_expit(points) - points / 2 + self.weight() * points**2 / 2

    def score(self) -> np.ndarray:
        """Slope of the bound at zero."""
        return self.data.target - 0.5

    def tighten(self, factor, ridge, n_steps=2) -> LogisticBound:
        """Move the touching points to the root mean square of the log-odds."""
        bound = self
        for _ in range(n_steps):
            second = bound._moments(factor, ridge)[2]
            bound = replace(bound, points=np.sqrt(second)[:, None])
        return bound

    def means(self, factor, ridge):
        """Posterior of the shared mean: weights of every column, and a covariance."""
        mean, cov, _ = self._moments(factor, ridge)
        return mean[None], cov

    def _moments(self, factor, ridge):
        """Posterior of the shared mean, and second moments of the log-odds."""
        data, (part,) = self.data, self.parts()
        precision, score, *_ = marginalise(part, factor, 1.0)
        mean, mean_cov, _ = shared_mean(precision.sum(0), score.sum(0), ridge)
        center = data.center[0]
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


@dataclass(frozen=True)
class SoftmaxExpansion(Quadratic):
    """More classes: slopes at the most probable logits, curvatures of their averages.

    As in penalised quasi-likelihood [1]_ the slope is exact at `points`. The curvature
    is that of the class alone, from probabilities averaged over the posterior of the
    logits: at the points themselves it would vanish for a prior so wide that it
    separates every task by itself, and so reward it; a bound that holds for all logits
    [2]_ hides most of what differs between tasks.

    Parameters
    ----------
    data : LogisticData
        Rows.
    points : ndarray of shape (n_rows, n_classes)
        Logits around which it is taken.
    variance : ndarray of shape (n_rows, n_classes) or float, default=0.0
        Posterior variance of the logits between tasks.

    References
    ----------
    .. [1] N. E. Breslow and D. G. Clayton, "Approximate inference in generalized linear
       mixed models", Journal of the American Statistical Association 88 (1993), 9-25.
    .. [2] D. Böhning, "Multinomial logistic regression algorithm", Annals of the
       Institute of Statistical Mathematics 44 (1992), 197-200.
    """

    variance: np.ndarray | float = 0.0

    def take(self, tasks) -> SoftmaxExpansion:
        """The approximation of the rows of some tasks."""
        rows = self.data.rows(tasks)
        variance = np.broadcast_to(self.variance, self.points.shape)[rows]
        return replace(super().take(tasks), variance=variance)

    def weight(self) -> np.ndarray:
        """Curvature of every logit, for differences of logits (see `_Block.root`)."""
        variance = np.broadcast_to(self.variance, self.points.shape)
        p = averaged_probabilities(self.points, variance)
        share = p.shape[1] / (p.shape[1] - 1)
        return np.maximum(share * p * (1 - p), 1e-8)

    def residual(self) -> np.ndarray:
        """Gradient of the log-likelihood with respect to the logits."""
        return self.data.target - probabilities(self.points)

    def score(self) -> np.ndarray:
        """Slope of the approximation at zero."""
        return self.weight() * self.points + self.residual()

    def constant(self) -> np.ndarray:
        """What the statistics leave out."""
        inner = self.weight() * self.points / 2 + self.residual()
        exact = log_likelihood(self.points, self.data.target)
        return exact - (inner * self.points).sum(1)

    def tighten(self, factor, ridge, n_steps=20) -> SoftmaxExpansion:
        """Move the points to the most probable logits, and update the variances."""
        points = self._ascend(factor, ridge, n_steps)[0]
        moved = replace(self, points=points)
        data, variance = self.data, np.zeros_like(points)
        if not factor.shape[1]:
            return moved
        latent = data.features @ factor
        blocks = list(padded_blocks(data.codes, data.n_tasks, 2 * factor.shape[1]))
        for k, part in enumerate(moved.parts()):
            _, chol = conditional(factor, 1.0, part.gram, part.cross)
            for tasks, rows, mask in blocks:
                half = np.linalg.solve(chol[tasks], latent[rows].swapaxes(1, 2))
                variance[rows[mask], k] = np.square(half).sum(1)[mask]
        return replace(moved, variance=variance)

    def means(self, factor, ridge):
        """Posterior of the shared mean: weights of every class, and a covariance."""
        moved = replace(self, points=self._ascend(factor, ridge, 1000)[0])
        mean = moved._ascend(factor, ridge, 1)[1]
        covs = []
        for part in moved.parts():
            precision, score, *_ = marginalise(part, factor, 1.0)
            covs.append(shared_mean(precision.sum(0), score.sum(0), ridge)[1])
        return mean, np.mean(covs, axis=0)

    def _ascend(self, factor, ridge, n_steps, tolerance=1e-4):
        """Most probable logits and means of all tasks and classes together.

        With the largest curvature that a softmax can have, a half [2]_, an update never
        lowers the posterior density, and one factorisation serves them all.
        """
        data, codes, n_tasks = self.data, self.data.codes, self.data.n_tasks
        center, points = data.center.T, self.points
        half = np.full(len(codes), 0.5)
        gram = accumulate(data.features, half, codes, n_tasks, half).gram
        right, inner = whiten(gram, factor)
        inner[:, np.arange(factor.shape[1]), np.arange(factor.shape[1])] += 1.0
        inverse = np.linalg.inv(inner)
        gain = right @ inverse
        precision = gram.sum(0) - np.tensordot(gain, right, ([0, 2], [0, 2]))
        cov = shared_mean(precision, np.zeros(len(ridge)), ridge)[1]
        blocks = [
            (tasks, rows, mask, data.features[rows] * mask[..., None])
            for tasks, rows, mask in padded_blocks(codes, n_tasks, len(factor))
        ]
        cross, target = np.zeros((n_tasks, *center.shape)), data.target
        offset = gram @ center
        ahead, speed = points, 1.0
        for _ in range(n_steps):
            working = ahead / 2 + target - probabilities(ahead)
            for tasks, rows, _, block in blocks:
                cross[tasks] = np.matmul(block.swapaxes(1, 2), working[rows])
            score = cross - offset
            inside = np.matmul(factor.T, score)
            mean = cov @ (score.sum(0) - np.tensordot(gain, inside, ([0, 2], [0, 1])))
            latent = inverse @ (inside - right.swapaxes(1, 2) @ mean)
            weights = center + mean + factor @ latent
            last, points = points, np.empty_like(points)
            for tasks, rows, mask, block in blocks:
                points[rows[mask]] = np.matmul(block, weights[tasks])[mask]
            step = points - last
            if np.abs(points - ahead).max(initial=0.0) < tolerance:
                break
            # Momentum (Nesterov), given up whenever it leads uphill.
            if np.vdot(ahead - points, step) > 0:
                speed = 1.0
            last_speed, speed = speed, (1 + np.sqrt(1 + 4 * speed**2)) / 2
            ahead = points + (last_speed - 1) / speed * step
        return points, (center + mean).T
