"""Learning the Gaussian prior over task weights from sufficient statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ._evidence import marginalise, shared_mean
from ._optimise import (
    Problem,
    default_ridge_groups,
    expectation_maximisation,
    initial_factor,
    maximise,
)
from ._statistics import Statistics, shifted

COVARIANCES = ("auto", "none", "intercept", "diagonal", "low_rank", "full")
# Above so many features correlations are left out (a full covariance, any covariance):
# they cost much time, and with the usual number of tasks they are not identified.
_MAX_FULL, _MAX_CORRELATED = 16, 32
# Tasks times cubed features for one evaluation of the marginal likelihood: 0.05 s.
_BUDGET = 3e7


@dataclass(frozen=True)
class Prior:
    """What fitting learned: the distribution of the weights of a new task.

    Parameters
    ----------
    mean : ndarray of shape (n_features,)
        Expected weights.
    factor : ndarray of shape (n_features, rank)
        Square root of the covariance of the weights of a new task: how much tasks
        differ, plus how little is known of their mean.
    between : ndarray of shape (n_features, rank_between)
        Square root of the first of these two parts. Tasks that were themselves fitted
        on get their exact posterior from it.
    noise : float
        Variance of the noise.
    ridge : ndarray of shape (n_features,)
        Learned prior precision of the mean.
    covariance : str
        Structure of the covariance.
    log_evidence : float
        Log marginal likelihood of the training tasks.
    n_iter : int
        Evaluations of the marginal likelihood by the optimiser.
    """

    mean: np.ndarray
    factor: np.ndarray
    between: np.ndarray
    noise: float
    ridge: np.ndarray
    covariance: str
    log_evidence: float
    n_iter: int


def fit_prior(
    statistics: Statistics,
    covariance: str = "auto",
    *,
    n_base: int = 0,
    center: np.ndarray | None = None,
    max_iter: int = 300,
) -> Prior:
    """Learn the prior by maximum marginal likelihood.

    Task weights are ``w ~ N(mean, cov)``, targets ``y ~ N(features @ w, noise)``, and
    the slopes of the mean are shrunk by a learned ridge. All variances maximise the
    marginal likelihood (weights and mean integrated out): ten EM steps [1]_, then
    L-BFGS to a relative gain per row of 1e-8. Correlations carry an LKJ prior.

    Features and targets are expected standardised, with a leading constant; see
    `fit_design`.

    Parameters
    ----------
    statistics : Statistics
        Sufficient statistics of the training tasks.
    covariance : {"auto", "none", "intercept", "diagonal", "low_rank", "full"}, \
            default="auto"
        Structure of the covariance between tasks. With "auto" the marginal likelihood
        decides, less one for each parameter (Schwarz's logarithm would be too much: a
        variance that is not needed goes to zero by itself and then costs nothing).
    n_base : int, default=0
        How many of the last features are predictions of a pooled model; their mean
        slopes have a ridge of their own.
    center : ndarray of shape (n_features,), default=None
        Weights towards which the ridge shrinks the mean; zero by default. See
        ``Design.pooled_weights``.
    max_iter : int, default=300
        Bound on the iterations of L-BFGS.

    Returns
    -------
    Prior
        The learned prior.

    References
    ----------
    .. [1] N. M. Laird and J. H. Ware, "Random-effects models for longitudinal data",
       Biometrics 38 (1982), 963-974.
    """
    if covariance not in COVARIANCES:
        raise ValueError(
            f"covariance must be one of {COVARIANCES}, got {covariance!r}."
        )
    statistics = statistics.take(statistics.count > 0)
    if not statistics.n_tasks:
        raise ValueError("Learning a prior needs at least one task with rows.")
    center = np.zeros(statistics.n_features) if center is None else center
    statistics = shifted(statistics, center)
    sample = subsample(statistics)
    names = candidates(*sample.cross.shape) if covariance == "auto" else [covariance]
    groups = default_ridge_groups(statistics.n_features, n_base)
    start = expectation_maximisation([sample], groups)
    best, best_score = None, -np.inf
    for name in names:
        problem = Problem([sample], name, groups)
        theta, result = fit_structure(problem, start, max_iter)
        score = -result.fun * problem.n_rows - problem.n_free
        if score > best_score:
            best, best_score = (name, problem.unpack(theta), int(result.nfev)), score
    name, variances, n_iter = best
    prior = prior_of(statistics, *variances, name, n_iter)
    return replace(prior, mean=center + prior.mean)


def subsample(statistics: Statistics) -> Statistics:
    """Tasks that the variances are learned from: all, up to a bound on the time."""
    chosen = sampled_tasks(statistics.n_tasks, statistics.n_features)
    return statistics if chosen is None else statistics.take(chosen)


def sampled_tasks(n_tasks: int, n_features: int, n_columns: int = 1):
    """Tasks for the variances, or None for all of them; the same in every run."""
    limit = int(np.clip(_BUDGET / n_features**3 / n_columns, 200, 5000))
    if n_tasks <= limit:
        return None
    return np.sort(np.random.default_rng(0).permutation(n_tasks)[:limit])


def candidates(n_tasks: int, n_features: int) -> list[str]:
    """Structures worth comparing for so many tasks and features."""
    if n_tasks < 2:
        return ["none"]
    if n_features < 2:
        return ["intercept"]
    if n_tasks <= n_features or n_features > _MAX_CORRELATED:
        return ["intercept", "diagonal"]
    rich = "full" if n_features <= _MAX_FULL else "low_rank"
    return ["intercept", "diagonal", rich]


def fit_structure(problem: Problem, start, max_iter: int):
    """Best parameters of one structure, and the result of the optimiser."""
    cov, noise, slope_variances, _ = start
    factor = initial_factor(cov, problem.covariance)
    theta = problem.pack(factor, noise, slope_variances)
    result = maximise(problem, theta, max_iter)
    return result.x, result


def prior_of(
    statistics: Statistics,
    factor: np.ndarray,
    noise: float,
    ridge: np.ndarray,
    covariance: str,
    n_iter: int = 0,
    tolerance: float = 1e-12,
) -> Prior:
    """Prior of a new task for given variances, from the statistics of all tasks."""
    p = statistics.n_features
    precision, score, quadratic = np.zeros((p, p)), np.zeros(p), 0.0
    # In chunks of tasks, because the precisions of all tasks at once would multiply
    # the memory that the statistics take.
    for begin in range(0, statistics.n_tasks, 1000):
        chunk = marginalise(statistics.take(slice(begin, begin + 1000)), factor, noise)
        precision += chunk[0].sum(0)
        score += chunk[1].sum(0)
        quadratic += chunk[2].sum() + chunk[3].sum()
    mean, mean_cov, log_det = shared_mean(precision, score, ridge)
    n_rows = statistics.count.sum()
    quadratic += n_rows * np.log(2 * np.pi) - score @ mean + log_det
    return Prior(
        mean=mean,
        factor=symmetric_root(factor @ factor.T + mean_cov, tolerance),
        between=factor,
        noise=noise,
        ridge=ridge,
        covariance=covariance,
        log_evidence=-0.5 * (quadratic - np.log(ridge).sum()),
        n_iter=n_iter,
    )


def symmetric_root(cov: np.ndarray, tolerance: float) -> np.ndarray:
    """Factor of a covariance without its negligible directions."""
    values, vectors = np.linalg.eigh(cov)
    keep = values > tolerance * values[-1]
    return vectors[:, keep] * np.sqrt(values[keep])
