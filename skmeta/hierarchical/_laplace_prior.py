"""Learning the prior over the weights of logistic tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ._laplace import LogisticPrior, logistic_posterior, predict_proba
from ._laplace_bound import LogisticData, bound_value, expand, moments, tighten
from ._optimise import (
    Problem,
    default_ridge_groups,
    expectation_maximisation,
    initial_factor,
    maximise,
)
from ._prior import COVARIANCES, candidates, sampled_tasks, symmetric_root

# Directions of the prior of a new task with less than this share of the largest
# variance are dropped: the state of a task grows with the square of their number.
_TOLERANCE = 1e-3
_SCALES, _ROW_WEIGHTS, _SHOTS = (0.5, 1.0), (0.1, 0.3, 1.0), (2, 5, 20)
_N_FOLDS = 5


def fit_logistic_prior(
    features: np.ndarray,
    labels: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    n_classes: int,
    covariance: str = "auto",
    *,
    n_base: int = 0,
    max_iter: int = 30,
) -> LogisticPrior:
    """Learn the prior of logistic tasks.

    A quadratic lower bound of every log-likelihood (Jaakkola and Jordan [1]_) makes the
    tasks linear-Gaussian with known noise. Its variances are maximised and the bound
    tightened in turn, neither of which can lower it, until it gains less than 0.03 per
    task. Unlike the Laplace approximation the bound does not reward a prior so wide
    that it separates every task by itself.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        Standardised design rows with a leading constant.
    labels : ndarray of shape (n_rows,)
        Class indices in ``range(n_classes)``.
    codes : ndarray of shape (n_rows,)
        Task of every row, in ``range(n_tasks)``.
    n_tasks, n_classes : int
        Number of tasks and of classes.
    covariance : {"auto", "none", "intercept", "diagonal", "low_rank", "full"}, \
            default="auto"
        Structure of the covariance between tasks. With "auto" structure, scale and
        weight of support rows are those that predict the later rows of held-out
        training tasks best from the earlier ones.
    n_base : int, default=0
        How many of the last features are predictions of a pooled model.
    max_iter : int, default=30
        Bound on the number of updates.

    Returns
    -------
    LogisticPrior
        The learned prior.

    References
    ----------
    .. [1] T. S. Jaakkola and M. I. Jordan, "Bayesian parameter estimation via
       variational methods", Statistics and Computing 10 (2000), 25-37.
    """
    if covariance not in COVARIANCES:
        raise ValueError(
            f"covariance must be one of {COVARIANCES}, got {covariance!r}."
        )
    if not len(codes):
        raise ValueError("Learning a prior needs at least one task with rows.")
    present, codes = np.unique(codes, return_inverse=True)
    data = LogisticData(features, labels, codes, len(present), n_classes)
    groups = default_ridge_groups(features.shape[1], n_base)
    if covariance != "auto":
        return _fit_structure(data, covariance, groups, max_iter)[0]
    names = dict.fromkeys(["none", *candidates(len(present), len(groups))])
    fitted = [_fit_structure(data, name, groups, max_iter) for name in names]
    return choose(data, fitted)


def _fit_structure(data, covariance, groups, max_iter):
    """Prior of one structure, and where its bound touches.

    Variances come from as many tasks as time allows, means from all of them.
    """
    few = data.take(_sample(data))
    bound = np.ones(few.target.shape)
    theta, last, n_iter = None, -np.inf, 0
    while n_iter < max_iter:
        n_iter += 1
        problem = Problem(expand(few, bound), covariance, groups, fixed_noise=1.0)
        theta = _start(problem) if theta is None else theta
        theta = maximise(problem, theta, 5).x
        value = bound_value(problem, theta, bound)
        if value < last + 0.03 * few.n_tasks:
            break
        last = value
        bound = tighten(few, problem.unpack(theta), bound)
    factor, _, ridge = problem.unpack(theta)
    if few is not data:
        bound = tighten(data, (factor, 1.0, ridge), np.ones(data.target.shape), 10)
    prior = LogisticPrior(None, factor, factor, ridge, covariance, value, n_iter)
    return _with_means(data, prior, bound), bound


def _sample(data):
    """Tasks that the variances are learned from, or None for all."""
    # Four evaluations for each one of the Gaussian model, for every column.
    n_columns = 4 * data.target.shape[1]
    return sampled_tasks(data.n_tasks, data.features.shape[1], n_columns)


def _with_means(data, prior, bound) -> LogisticPrior:
    """Prior with the means, and their uncertainty, that a bound implies."""
    parts = expand(data, bound)
    fits = [moments(data, s, prior.between, prior.ridge)[:2] for s in parts]
    means, covs = zip(*fits, strict=True)
    cov = prior.between @ prior.between.T + np.mean(covs, axis=0)
    return replace(prior, mean=np.array(means), factor=symmetric_root(cov, _TOLERANCE))


def _start(problem):
    cov, _, slopes, _ = expectation_maximisation(
        problem.parts, problem.groups, fixed_noise=1.0
    )
    return problem.pack(initial_factor(cov, problem.covariance), 1.0, slopes)


def choose(data: LogisticData, fitted) -> LogisticPrior:
    """Prior, scale and row weight that predict later rows of new tasks best.

    Folds are over tasks, and each is judged with the means that the others give. The
    likelihood counts rows as independent; where they are not, as in windows of one
    activity after another, it asks for more adaptation than pays, and this does not.

    Parameters
    ----------
    data : LogisticData
        Training rows.
    fitted : list of (LogisticPrior, ndarray)
        Prior of every structure, and where its bound touches.
    """
    sample = _sample(data)
    rows, data = data.rows(sample), data.take(sample)
    n_folds = min(_N_FOLDS, data.n_tasks)
    fold = np.random.default_rng(0).permutation(data.n_tasks) % n_folds
    scores = np.zeros(sum(len(versions(prior)) for prior, _ in fitted))
    for k in range(n_folds):
        rest, held_out = np.flatnonzero(fold != k), data.take(np.flatnonzero(fold == k))
        trials = []
        for prior, bound in fitted:
            bound = bound[rows][data.rows(rest)]
            trials += versions(_refit_means(data.take(rest), prior, bound))
        scores += [later_loss(held_out, trial) for trial in trials]
    trials = [trial for prior, _ in fitted for trial in versions(prior)]
    return trials[int(np.argmin(scores))]


def _refit_means(data, prior, bound):
    bound = tighten(data, (prior.between, 1.0, prior.ridge), bound, 5)
    return _with_means(data, prior, bound)


def versions(prior: LogisticPrior) -> list[LogisticPrior]:
    """The prior, and versions of it that adapt less."""
    if prior.covariance == "none":
        return [prior]
    return [
        replace(
            prior,
            factor=scale * prior.factor,
            between=scale * prior.between,
            row_weight=weight,
        )
        for scale in _SCALES
        for weight in _ROW_WEIGHTS
    ]


def row_positions(codes: np.ndarray, n_tasks: int) -> np.ndarray:
    """Position of every row among the rows of its task."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=n_tasks)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = np.empty(len(codes), dtype=int)
    position[order] = np.arange(len(codes)) - starts
    return position


def later_loss(data: LogisticData, prior: LogisticPrior) -> float:
    """Log-loss after 2, 5 and 20 rows of new tasks, all tasks weighing alike."""
    position = row_positions(data.codes, data.n_tasks)
    return sum(_loss_after(data, prior, position < n_shots) for n_shots in _SHOTS)


def _loss_after(data, prior, support) -> float:
    """Log-loss of the rows outside the support, summed over tasks."""
    X, y, codes = data.features, data.labels, data.codes
    state = logistic_posterior(
        prior, X[support], y[support], codes[support], data.n_tasks, data.n_classes
    )
    query = ~support
    proba = predict_proba(prior, state, X[query], codes[query])
    loss = -np.log(np.maximum(proba[np.arange(len(proba)), y[query]], 1e-12))
    sizes = np.bincount(codes[query], minlength=data.n_tasks)[codes[query]]
    return float((loss / sizes).sum())
