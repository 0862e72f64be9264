"""Adapting logistic tasks with a Gaussian prior: batched Newton and Laplace.

Logits are ``features @ (mean_k + factor @ u_k)`` with standard normal ``u_k``: the
log-odds of the second class where there are two, otherwise one logit of each class
under a softmax. The covariance between tasks is shared by the classes. Cost is linear
in the number of classes: the Hessian of all of them is never formed, Newton's steps
come from conjugate gradients, and the posterior is kept class by class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from ._statistics import padded_blocks

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class ClassFrequencies:
    """How often classes occur, to tell what is due to the choice of support rows.

    A support in which a class is ``r`` times as frequent as usual has logits that are
    larger by ``log r`` for this class, whatever the features: the correction for rows
    that were chosen by class, as in case-control studies (Prentice and Pyke [1]_).
    Without it twenty rows of one class would make it the only one to be expected.

    Parameters
    ----------
    share : ndarray of shape (n_classes,)
        Share of each class in the training rows; all positive.
    n_rows : float
        How many rows it counts as, beside those of a support. With many the frequencies
        of the support count as evidence of the task's own, with few as chance.

    References
    ----------
    .. [1] R. L. Prentice and R. Pyke, "Logistic disease incidence models and
       case-control studies", Biometrika 66 (1979), 403-411.
    """

    share: np.ndarray
    n_rows: float

    def log_ratio(self, labels, codes, n_tasks, weight) -> np.ndarray:
        """Log of how often a class is in a support, over how often it is usually.

        Parameters
        ----------
        labels, codes : ndarray of shape (n_rows,)
            Class indices and tasks of support rows.
        n_tasks : int
            Number of tasks.
        weight : ndarray of shape (n_rows,)
            How often each row counts.

        Returns
        -------
        ndarray of shape (n_tasks, n_classes)
        """
        n_classes = len(self.share)
        counts = np.bincount(codes * n_classes + labels, weight, n_tasks * n_classes)
        counts = counts.reshape(n_tasks, n_classes) + self.n_rows * self.share
        return np.log(counts / counts.sum(1, keepdims=True) / self.share)


@dataclass(frozen=True)
class LogisticPrior:
    """Distribution of the weights of a new classification task.

    Parameters
    ----------
    mean : ndarray of shape (n_columns, n_features)
        Expected weights of every logit.
    factor : ndarray of shape (n_features, rank)
        Square root of the covariance of the weights, for each logit.
    between : ndarray of shape (n_features, rank_between)
        Part of it that is the difference between tasks.
    ridge : ndarray of shape (n_features,)
        Learned prior precision of the mean.
    covariance : str
        Structure of the covariance.
    log_evidence : float
        Approximate log marginal likelihood of the training tasks.
    n_iter : int
        Updates of the approximation.
    row_weight : float
        How much a support row counts; less than one where rows resemble each other
        more than the model says.
    frequencies : ClassFrequencies, default=None
        Of the training rows, where classes come in stretches, so that those of a few
        rows in order say little of the rows after them; None where they tell.
    """

    mean: np.ndarray
    factor: np.ndarray
    between: np.ndarray
    ridge: np.ndarray
    covariance: str
    log_evidence: float
    n_iter: int
    row_weight: float = 1.0
    frequencies: ClassFrequencies | None = None

    def shift(self, labels, codes, n_tasks, weight) -> np.ndarray:
        """What is added to the logits of the support rows of each task.

        Returns
        -------
        ndarray of shape (n_tasks, n_columns)
            Zero where nothing is known of how classes come.
        """
        if self.frequencies is None:
            return np.zeros((n_tasks, len(self.mean)))
        logits = self.frequencies.log_ratio(labels, codes, n_tasks, weight)
        return logits if len(self.mean) > 1 else logits[:, 1:] - logits[:, :1]

    @property
    def row_noise(self) -> float:
        """Unit of the precisions that states keep, which are those of the weights."""
        return 1.0


def indicators(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Class indices as columns: the second class alone, or one column per class."""
    if n_classes <= 2:
        return (labels == 1).astype(float)[:, None]
    return np.eye(n_classes)[labels]


def log_likelihood(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Log-likelihood of every row; columns on the last axis."""
    if logits.shape[-1] == 1:
        return log_expit(np.where(target == 1, logits, -logits))[..., 0]
    return (target * log_softmax(logits, axis=-1)).sum(-1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probability of every column: the second of two classes, or all classes."""
    return expit(logits) if logits.shape[-1] == 1 else softmax(logits, axis=-1)


def logistic_posterior(
    prior: LogisticPrior,
    features: np.ndarray,
    labels: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    n_classes: int,
    weight: np.ndarray | None = None,
) -> State:
    """Laplace posterior of the weights of new tasks.

    Parameters
    ----------
    prior : LogisticPrior
        Learned prior.
    features : ndarray of shape (n_rows, n_features)
        Design rows of the support set.
    labels : ndarray of shape (n_rows,)
        Class indices in ``range(n_classes)``; a class may be missing in a task.
    codes : ndarray of shape (n_rows,)
        Task of every row, in ``range(n_tasks)`` and in any order.
    n_tasks, n_classes : int
        Number of tasks (those without rows get the prior) and of classes.
    weight : ndarray of shape (n_rows,), default=None
        How often each row counts.

    Returns
    -------
    dict
        ``"mean"`` of shape (n_tasks, n_columns, n_features), the most probable weights,
        and ``"chol"`` of shape (n_tasks, n_columns, rank, rank), the lower root of the
        posterior precision in the coordinates of ``prior.factor``. With more than two
        classes correlations between their weights are left out, see `_Block.root`.
    """
    target = indicators(labels, n_classes)
    weight = np.ones(len(codes)) if weight is None else weight
    mean = np.broadcast_to(prior.mean, (n_tasks, *prior.mean.shape))
    seen = mean
    if prior.frequencies is not None:
        seen = mean.copy()  # features have a leading constant
        seen[..., 0] += prior.shift(labels, codes, n_tasks, weight)
    latent, chol = newton(
        seen, prior.factor, features, target, codes, prior.row_weight * weight
    )
    return {"mean": mean + latent @ prior.factor.T, "chol": chol}


def training_logistic_posterior(
    prior: LogisticPrior,
    features: np.ndarray,
    labels: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    n_classes: int,
    weight: np.ndarray | None = None,
) -> State:
    """Laplace posterior of tasks that the prior was fitted on.

    Their rows are in the mean already, so they move the weights by the difference
    between tasks only; conditioning afresh would count them twice. All rows of a task
    are here, not its first ones alone, so its class frequencies are its own. Precisions
    are those of `logistic_posterior`. Parameters and result as there.
    """
    prior = replace(prior, frequencies=None)
    state = logistic_posterior(
        prior, features, labels, codes, n_tasks, n_classes, weight
    )
    mean = np.broadcast_to(prior.mean, (n_tasks, *prior.mean.shape))
    target = indicators(labels, n_classes)
    weight = prior.row_weight * (np.ones(len(codes)) if weight is None else weight)
    latent, _ = newton(mean, prior.between, features, target, codes, weight)
    return state | {"mean": mean + latent @ prior.between.T}


def newton(mean, factor, features, target, codes, weight, tolerance=1e-8):
    """Most probable latent weights of all tasks, and roots of their precisions.

    Parameters
    ----------
    mean : ndarray of shape (n_tasks, n_columns, n_features)
        Prior means.
    factor : ndarray of shape (n_features, rank)
        Square root of the prior covariance.
    features, target, codes, weight : ndarray
        Rows, `indicators` of their classes, their tasks, their weights.
    tolerance : float, default=1e-8
        Largest entry of the gradient of the log posterior at the end.

    Returns
    -------
    latent : ndarray of shape (n_tasks, n_columns, rank)
    chol : ndarray of shape (n_tasks, n_columns, rank, rank)
    """
    n_tasks, n_columns, _ = mean.shape
    rank = factor.shape[1]
    latent = np.zeros((n_tasks, n_columns, rank))
    chol = np.broadcast_to(np.eye(rank), (n_tasks, n_columns, rank, rank)).copy()
    if not rank:
        return latent, chol
    width = features.shape[1] + n_columns * (rank + 2)
    for tasks, rows, mask in padded_blocks(codes, n_tasks, width):
        block = features[rows]
        offset = np.matmul(block, mean[tasks].swapaxes(1, 2))
        problem = _Block(block @ factor, offset, target[rows], mask * weight[rows])
        latent[tasks] = problem.solve(latent[tasks], tolerance)
        chol[tasks] = problem.root(latent[tasks])
    return latent, chol


@dataclass
class _Block:
    """Log posterior of tasks of similar size, padded."""

    Z: np.ndarray
    offset: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    def __getitem__(self, tasks):
        fields = self.Z, self.offset, self.target, self.weight
        return _Block(*(field[tasks] for field in fields))

    def logits(self, latent):
        return self.offset + np.matmul(self.Z, latent.swapaxes(1, 2))

    def value(self, latent):
        likelihood = log_likelihood(self.logits(latent), self.target)
        return (likelihood * self.weight).sum(1) - 0.5 * np.square(latent).sum((1, 2))

    def blocks(self, curve):
        """Precision of every column for the curvature of its logit in every row."""
        curve = curve * self.weight[..., None]
        scaled = self.Z[:, None] * curve.transpose(0, 2, 1)[..., None]
        precision = np.matmul(scaled.swapaxes(2, 3), self.Z[:, None])
        precision[..., np.arange(self.rank), np.arange(self.rank)] += 1.0
        return precision

    @property
    def rank(self):
        return self.Z.shape[-1]

    def root(self, latent):
        """Lower root of the posterior precision of every column.

        Only differences of logits matter. With K classes the diagonal blocks of the
        Hessian, times K / (K - 1) in the likelihood, give the variances of these
        differences exactly where all classes are as probable, and nearly elsewhere.
        """
        p = probabilities(self.logits(latent))
        n_columns = p.shape[-1]
        share = n_columns / (n_columns - 1) if n_columns > 1 else 1.0
        return np.linalg.cholesky(self.blocks(share * p * (1 - p)))

    def gradient(self, latent, p):
        residual = (self.target - p) * self.weight[..., None]
        return np.matmul(residual.swapaxes(1, 2), self.Z) - latent

    def solve(self, latent, tolerance, max_iter=200):
        """Damped Newton, every task until its own gradient vanishes."""
        latent = latent.copy()
        open_, part = np.arange(len(latent)), self
        for _ in range(max_iter):
            current = latent[open_]
            p = probabilities(part.logits(current))
            gradient = part.gradient(current, p)
            moving = np.abs(gradient).max((1, 2)) > tolerance
            if not moving.any():
                break
            if not moving.all():
                open_, part = open_[moving], part[moving]
                current, p, gradient = current[moving], p[moving], gradient[moving]
            step = part.newton_step(p, gradient)
            latent[open_] = part.line_search(
                current, step, (gradient * step).sum((1, 2))
            )
        return latent

    def newton_step(self, p, gradient):
        """Solution of Hessian times step equals gradient, of every task."""
        blocks = self.blocks(p * (1 - p))
        if p.shape[-1] == 1:
            return np.linalg.solve(blocks, gradient[..., None])[..., 0]
        return self.conjugate_gradients(p, np.linalg.inv(blocks), gradient)

    def conjugate_gradients(self, p, inverse, gradient):
        """Newton step of the softmax, preconditioned by the blocks of its classes.

        Latent weights and gradients sum to zero over classes, and directions that do
        not are kept out. Residuals end up small against the gradient, the more so the
        smaller it is, so that Newton's method still converges superlinearly.
        """

        def precondition(residual):
            z = np.matmul(inverse, _centred(residual)[..., None])[..., 0]
            return _centred(z)

        residual, step = gradient.copy(), np.zeros_like(gradient)
        direction = z = precondition(residual)
        power = (residual * z).sum((1, 2))
        goal = power * np.minimum(0.01, power)
        for _ in range(3 * self.rank * p.shape[-1]):
            # Tasks that are done, or have no direction left, stay where they are.
            moving = power > np.maximum(goal, 1e-30)
            if not moving.any():
                break
            along = self.curved(p, direction)
            bend = np.where(moving, (direction * along).sum((1, 2)), 1.0)
            length = (np.where(moving, power, 0.0) / bend)[:, None, None]
            step += length * direction
            residual -= length * along
            z = precondition(residual)
            last, power = power, np.where(moving, (residual * z).sum((1, 2)), 0.0)
            ratio = power / np.where(moving, last, 1.0)
            direction = z + ratio[:, None, None] * direction
        return step

    def curved(self, p, direction):
        """Hessian of the softmax times a direction."""
        change = np.matmul(self.Z, direction.swapaxes(1, 2))
        change = p * (change - (p * change).sum(-1, keepdims=True))
        change *= self.weight[..., None]
        return direction + np.matmul(change.swapaxes(1, 2), self.Z)

    def line_search(self, latent, step, slope):
        """Halve the step of every task until the log posterior rises enough."""
        length = np.ones(len(latent))
        value = self.value(latent)
        slack = 1e-12 * np.abs(value)
        for _ in range(30):
            moved = latent + length[:, None, None] * step
            short = self.value(moved) < value + 1e-4 * length * slope - slack
            if not short.any():
                break
            length[short] /= 2
        return moved


def _centred(latent):
    """Without what is common to all classes."""
    return latent - latent.mean(1, keepdims=True)


def predict_logits(
    prior: LogisticPrior, state: State, features: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and variances of the logits of rows.

    Parameters
    ----------
    prior : LogisticPrior
        Learned prior.
    state : dict
        What `logistic_posterior` returned.
    features : ndarray of shape (n_rows, n_features)
        Design rows.
    codes : ndarray of shape (n_rows,)
        Task of every row; -1 for an unknown task, which is predicted by the prior.

    Returns
    -------
    mean, variance : ndarray of shape (n_rows, n_columns)
    """
    n_rows, n_columns = len(features), len(prior.mean)
    latent = features @ prior.factor
    mean = features @ prior.mean.T
    variance = np.repeat(np.square(latent).sum(1)[:, None], n_columns, axis=1)
    known = np.flatnonzero(codes >= 0)
    width = features.shape[1] + 2 * n_columns * latent.shape[1]
    n_tasks = len(state["mean"])
    for tasks, rows, mask in padded_blocks(codes[known], n_tasks, width):
        rows = known[rows]
        logits = np.matmul(features[rows], state["mean"][tasks].swapaxes(1, 2))
        mean[rows[mask]] = logits[mask]
        Z = latent[rows].swapaxes(1, 2)[:, None]
        half = np.linalg.solve(state["chol"][tasks], Z)
        variance[rows[mask]] = np.square(half).sum(2).swapaxes(1, 2)[mask]
    return mean, variance.reshape(n_rows, n_columns)


def predict_proba(
    prior: LogisticPrior, state: State, features: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """Class probabilities of rows, posterior uncertainty of the weights included.

    Log-odds are shrunk by ``1 / sqrt(1 + pi variance / 8)`` (MacKay [1]_); with more
    than two classes those of every pair of them (Lu, Ie and Sha [2]_).

    Returns
    -------
    ndarray of shape (n_rows, n_classes)

    References
    ----------
    .. [1] D. J. C. MacKay, "The evidence framework applied to classification networks",
       Neural Computation 4 (1992), 720-736.
    .. [2] Z. Lu, E. Ie and F. Sha, "Mean-field approximation to Gaussian-softmax
       integral with application to uncertainty estimation", arXiv:2006.07584 (2020).
    """
    mean, variance = predict_logits(prior, state, features, codes)
    return averaged_probabilities(mean, variance)


def averaged_probabilities(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Expected class probabilities for independent Gaussian logits."""
    if mean.shape[1] == 1:
        p = expit(mean / np.sqrt(1 + np.pi / 8 * variance))
        return np.hstack([1 - p, p])
    p = np.empty_like(mean)
    for k in range(mean.shape[1]):
        spread = np.sqrt(1 + np.pi / 8 * (variance + variance[:, k : k + 1]))
        spread[:, k] = 1.0
        p[:, k] = np.exp(-logsumexp((mean - mean[:, k : k + 1]) / spread, axis=1))
    p = np.maximum(p, np.finfo(float).tiny)
    return p / p.sum(1, keepdims=True)
