"""Learning the prior over arm weights from logged tasks, by variational Bayes.

In task ``t`` the weights of arm ``a`` are ``mean_a + loadings_a @ z_t + own_ta``: a few
numbers ``z_t`` of the task move all arms together, and every arm has a deviation of its
own. With ``s_t = (1, z_t)`` and ``A_a = (mean_a, loadings_a)`` it is ``A_a s_t + own``.
Few logged rows leave ``A`` uncertain, so it has a posterior too, and what is not known
of it widens the prior of a new task.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..tasks._table import sum_by_code

_NOISE_FLOOR = 1e-6


@dataclass(frozen=True)
class Cells:
    """Statistics of the rows of one arm in one task, for all such pairs with rows.

    Parameters
    ----------
    gram : ndarray of shape (n_cells, n_features, n_features)
        Sums of outer products of contexts.
    cross : ndarray of shape (n_cells, n_features)
        Sums of context times reward.
    task, arm : ndarray of shape (n_cells,)
        Which pair it is.
    energy, count : float
        Sum of squared rewards, and number of rows, of all cells together.
    n_tasks, n_arms : int
        Their numbers.
    """

    gram: np.ndarray
    cross: np.ndarray
    task: np.ndarray
    arm: np.ndarray
    energy: float
    count: float
    n_tasks: int
    n_arms: int

    def over_tasks(self, values):
        """Sums over the cells of every task."""
        return sum_by_code(values, self.task, self.n_tasks)

    def over_arms(self, values):
        """Sums over the cells of every arm."""
        return sum_by_code(values, self.arm, self.n_arms)


def cells_of(features, arms, y, codes, n_arms, n_tasks, weight=None) -> Cells:
    """Statistics of rows in long format.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        Design rows with a leading constant.
    arms, codes : ndarray of shape (n_rows,)
        Arm and task of every row.
    y : ndarray of shape (n_rows,)
        Rewards.
    n_arms, n_tasks : int
        Their numbers.
    weight : ndarray of shape (n_rows,), default=None
        Weight of every row.
    """
    used, cell = np.unique(codes * n_arms + arms, return_inverse=True)
    scaled = features if weight is None else features * weight[:, None]
    order = np.argsort(cell, kind="stable")
    gram = np.zeros((len(used), features.shape[1], features.shape[1]))
    for i, rows in enumerate(np.split(order, np.flatnonzero(np.diff(cell[order])) + 1)):
        gram[i] = scaled[rows].T @ features[rows]
    return Cells(
        gram,
        sum_by_code(scaled * y[:, None], cell, len(used)),
        used // n_arms,
        used % n_arms,
        float((np.square(y) * (1 if weight is None else weight)).sum()),
        float(len(y)),
        n_tasks,
        n_arms,
    )


@dataclass
class Posterior:
    """Factors of the variational posterior.

    Parameters
    ----------
    A, A_cov : ndarray of shape (n_arms, 1 + rank, n_features) and \
            (n_arms, 1 + rank, n_features, 1 + rank, n_features)
        Mean and covariance of ``(mean_a, loadings_a)``, transposed.
    s, s_square : ndarray of shape (n_tasks, 1 + rank), (n_tasks, 1 + rank, 1 + rank)
        Expectation of ``s_t`` and of its outer product with itself.
    own, own_cov : ndarray of shape (n_cells, n_features), (n_cells, n_features, \
            n_features)
        Mean and covariance of the own deviations.
    """

    A: np.ndarray
    A_cov: np.ndarray
    s: np.ndarray
    s_square: np.ndarray
    own: np.ndarray
    own_cov: np.ndarray


@dataclass
class Hyper:
    """What is shared by all arms and tasks.

    Parameters
    ----------
    centre : ndarray of shape (1 + rank, n_features)
        Expected ``A_a`` of an arm.
    precision : ndarray of shape (1 + rank,)
        How closely arms follow it; large for a direction that is not needed.
    own : ndarray of shape (n_features, n_features)
        Covariance of the own deviations.
    noise : float
        Variance of the noise.
    """

    centre: np.ndarray
    precision: np.ndarray
    own: np.ndarray
    noise: float


def fit_arms(
    cells: Cells, rank: int, *, fixed_noise=None, start=None, max_iter=300, tol=2e-4
):
    """Coordinate ascent until the noise and the loadings have settled.

    Parameters
    ----------
    cells : Cells
        Logged rows.
    rank : int
        Directions at the most; automatic relevance determination [1]_ removes those
        that are not needed.
    fixed_noise : float, default=None
        Noise variance where it is known.
    start : tuple of (Posterior, Hyper), default=None
        Where to start from; by default small random loadings, the same always.
    max_iter : int, default=300
        Sweeps at the most.
    tol : float, default=2e-4
        Relative change of the noise and the spread of the loadings in a sweep below
        which it has converged.

    Returns
    -------
    posterior : Posterior
    hyper : Hyper

    References
    ----------
    .. [1] C. M. Bishop, "Variational principal components", ICANN 1999.
    """
    q, hyper = _start(cells, rank, fixed_noise) if start is None else start
    last = np.inf
    for _ in range(max_iter):
        _update_tasks(cells, q, hyper)
        _update_arms(cells, q, hyper)
        _update_own(cells, q, hyper)
        _update_hyper(cells, q, hyper, fixed_noise)
        now = np.append(np.sqrt(1 / hyper.precision), np.sqrt(hyper.noise))
        if np.max(np.abs(now - last)) < tol * np.max(now):
            break
        last = now
    return q, hyper


def _start(cells, rank, fixed_noise):
    p, n_cells = cells.gram.shape[1], len(cells.gram)
    shape = (cells.n_arms, 1 + rank, p)
    rng = np.random.default_rng(0)
    A = rng.normal(size=shape) * np.sqrt(0.3 / p)
    A[:, 0] = 0.0
    s = np.zeros((cells.n_tasks, 1 + rank))
    s[:, 0] = 1.0
    q = Posterior(
        A,
        np.zeros((*shape, 1 + rank, p)),
        s,
        s[:, :, None] * s[:, None],
        np.zeros((n_cells, p)),
        np.zeros((n_cells, p, p)),
    )
    precision = np.full(1 + rank, float(p))
    noise = 0.5 if fixed_noise is None else fixed_noise
    return q, Hyper(np.zeros((1 + rank, p)), precision, np.eye(p) * 0.1 / p, noise)


def _squares(cells, q):
    """Expectation of ``A_a' gram A_a`` in every cell, (n_cells, 1 + rank, 1 + rank)."""
    A = q.A[cells.arm]
    mean = A @ cells.gram @ A.swapaxes(1, 2)
    # Sums over pairs of features of the gram and the covariance of the arm.
    n, p = len(cells.gram), cells.gram.shape[1]
    width = q.A.shape[1]
    spread = np.empty((n, width, width))
    flat = q.A_cov.transpose(0, 2, 4, 1, 3).reshape(cells.n_arms, p * p, width**2)
    for arm in range(cells.n_arms):
        rows = np.flatnonzero(cells.arm == arm)
        found = cells.gram[rows].reshape(len(rows), p * p) @ flat[arm]
        spread[rows] = found.reshape(len(rows), width, width)
    return mean + spread


def _update_tasks(cells, q, hyper):
    """Posterior of the numbers of every task, then in units in which they are white."""
    width = q.s.shape[1]
    if width == 1:
        return
    square = _squares(cells, q)
    left = cells.cross - np.einsum("cpq,cq->cp", cells.gram, q.own)
    linear = np.einsum("cjp,cp->cj", q.A[cells.arm], left)[:, 1:] - square[:, 1:, 0]
    precision = cells.over_tasks(square[:, 1:, 1:]) / hyper.noise + np.eye(width - 1)
    cov = np.linalg.inv(precision)
    mean = np.einsum("tjk,tk->tj", cov, cells.over_tasks(linear) / hyper.noise)
    mean = mean - mean.mean(0)
    root = np.linalg.cholesky((cov + mean[:, :, None] * mean[:, None]).mean(0))
    inverse = np.linalg.inv(root)
    mean, cov = mean @ inverse.T, inverse @ cov @ inverse.T
    q.s[:, 1:] = mean
    q.s_square[:] = q.s[:, :, None] * q.s[:, None]
    q.s_square[:, 1:, 1:] += cov


def _update_arms(cells, q, hyper):
    """Posterior of the mean and the loadings of every arm."""
    width, p = q.A.shape[1:]
    left = cells.cross - np.einsum("cpq,cq->cp", cells.gram, q.own)
    prior = np.repeat(hyper.precision, p)
    for arm in range(cells.n_arms):
        rows = np.flatnonzero(cells.arm == arm)
        task = cells.task[rows]
        squares = q.s_square[task].reshape(len(rows), width**2)
        gram = squares.T @ cells.gram[rows].reshape(len(rows), p * p)
        gram = gram.reshape(width, width, p, p).transpose(0, 2, 1, 3)
        precision = gram.reshape(width * p, width * p) / hyper.noise + np.diag(prior)
        linear = (q.s[task].T @ left[rows]).ravel() / hyper.noise
        cov = np.linalg.inv(precision)
        mean = cov @ (linear + prior * hyper.centre.ravel())
        q.A[arm] = mean.reshape(width, p)
        q.A_cov[arm] = cov.reshape(width, p, width, p)


def _update_own(cells, q, hyper):
    """Posterior of what every arm has by itself in a task."""
    common = np.einsum("cj,cjp->cp", q.s[cells.task], q.A[cells.arm])
    left = cells.cross - np.einsum("cpq,cq->cp", cells.gram, common)
    # Without inverting a covariance that may be close to singular.
    p = len(hyper.own)
    inner = np.eye(p) + hyper.own @ cells.gram / hyper.noise
    q.own_cov = np.linalg.solve(inner, np.broadcast_to(hyper.own, inner.shape))
    q.own = np.einsum("cpq,cq->cp", q.own_cov, left) / hyper.noise


def _update_hyper(cells, q, hyper, fixed_noise):
    p = len(hyper.own)
    hyper.centre = q.A.mean(0)
    square = np.square(q.A - hyper.centre).sum((0, 2))
    square += np.einsum("ajpjp->j", q.A_cov)
    hyper.precision = cells.n_arms * p / np.maximum(square, 1e-10)
    outer = q.own[:, :, None] * q.own[:, None] + q.own_cov
    # A weak prior, as if p cells had been seen that hardly deviate.
    hyper.own = (outer.sum(0) + 0.01 * np.eye(p)) / (len(outer) + p)
    hyper.own = (hyper.own + hyper.own.T) / 2
    if fixed_noise is None:
        hyper.noise = max(_residual(cells, q) / cells.count, _NOISE_FLOOR)


def _residual(cells, q):
    """Expected sum of squares of what the model leaves of the rewards."""
    common = np.einsum("cj,cjp->cp", q.s[cells.task], q.A[cells.arm])
    total = cells.energy - 2 * (cells.cross * (common + q.own)).sum()
    total += (_squares(cells, q) * q.s_square[cells.task]).sum()
    along = np.einsum("cpq,cq->cp", cells.gram, q.own)
    total += 2 * (along * common).sum() + (along * q.own).sum()
    return float(total + (cells.gram * q.own_cov).sum())


@dataclass(frozen=True)
class ArmPrior:
    """Distribution of the weights of all arms in a new task.

    Parameters
    ----------
    mean : ndarray of shape (n_arms, n_features)
        Expected weights.
    loadings : ndarray of shape (n_arms, n_features, rank)
        How the numbers of a task move them.
    own : ndarray of shape (n_arms, n_features, n_features)
        Covariance of the rest: what each arm has by itself, and what is not known of
        its mean and loadings.
    noise : float
        Variance of the noise; 1 for binary rewards.
    new_arm : tuple of ndarray
        The same three of an arm that no task has pulled.
    """

    mean: np.ndarray
    loadings: np.ndarray
    own: np.ndarray
    noise: float
    new_arm: tuple = field(repr=False)

    @property
    def covariance(self) -> np.ndarray:
        """Of all weights, (n_weights, n_weights)."""
        n_arms, p, rank = self.loadings.shape
        common = self.loadings.reshape(n_arms * p, rank)
        cov = common @ common.T
        for arm, own in enumerate(self.own):
            part = slice(arm * p, (arm + 1) * p)
            cov[part, part] += own
        return cov

    def with_new_arm(self) -> ArmPrior:
        """With one more arm, drawn from where the known ones seem to come from."""
        parts = zip((self.mean, self.loadings, self.own), self.new_arm, strict=True)
        mean, loadings, own = (np.concatenate([old, new[None]]) for old, new in parts)
        return replace(self, mean=mean, loadings=loadings, own=own)


def arm_prior(q: Posterior, hyper: Hyper) -> ArmPrior:
    """Prior of a new task, with what is not known of the arms."""
    p = len(hyper.own)
    own = hyper.own + np.einsum("ajpjq->apq", q.A_cov)
    new = hyper.own + np.eye(p) * (1 / hyper.precision).sum()
    return ArmPrior(
        mean=q.A[:, 0],
        loadings=q.A[:, 1:].swapaxes(1, 2),
        own=own,
        noise=hyper.noise,
        new_arm=(hyper.centre[0], hyper.centre[1:].T, new),
    )
