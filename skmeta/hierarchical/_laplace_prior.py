"""Learning the prior over the weights of logistic tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..tasks._table import row_positions
from ._laplace import (
    ClassFrequencies,
    LogisticPrior,
    logistic_posterior,
    predict_proba,
)
from ._laplace_bound import LogisticData, Quadratic, quadratic_of
from ._optimise import (
    FIXED_RIDGE,
    Problem,
    default_ridge_groups,
    expectation_maximisation,
    maximise,
    varying_columns,
)
from ._prior import (
    COVARIANCES,
    N_FOLDS,
    SHOTS,
    candidates,
    sampled_tasks,
    symmetric_root,
)
from ._statistics import aged

# Directions of the prior of a new task with less than this share of the largest
# variance are dropped: the state of a task grows with the square of their number.
_TOLERANCE = 1e-3
_ROW_WEIGHTS = (0.1, 0.3, 1.0)
# Rows that usual class frequencies count as, where support rows are the first ones. Of
# 1 to 30, best on training users of WISDM.
_FREQUENCY_ROWS = 10.0


def fit_logistic_prior(
    features: np.ndarray,
    labels: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    n_classes: int,
    covariance: str = "auto",
    *,
    n_base: int = 0,
    n_products: int = 0,
    decay: float = 1.0,
    center: np.ndarray | None = None,
    ordered: bool = False,
    max_iter: int = 30,
) -> LogisticPrior:
    """Learn the prior of logistic tasks.

    A quadratic approximation of every log-likelihood makes the tasks linear-Gaussian
    with known noise: for two classes a lower bound (Jaakkola and Jordan [1]_), for more
    penalised quasi-likelihood (Breslow and Clayton [2]_, see `SoftmaxExpansion`).
    Variances are maximised and the approximation updated in turn, until the evidence
    changes by less than 0.03 per task. Unlike the Laplace approximation neither
    rewards a prior so wide that it separates every task by itself.

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
        training tasks best from the earlier ones. Where a pooled model is given, it is
        kept as the mean unless changing it is better by more than a standard error.
    n_base : int, default=0
        How many of the last features are predictions of a pooled model.
    n_products : int, default=0
        How many of the features before these only the mean depends on, see
        `fit_prior`.
    decay : float, default=1.0
        What a support row counts less for each row of its task after it.
    center : ndarray of shape (n_columns, n_features), default=None
        Weights towards which the ridge shrinks the means; zero by default. See
        ``Design.pooled_weights``.
    ordered : bool, default=False
        Whether support rows are the first ones of a task. With "auto" their class
        frequencies then count as far as they foretell those of later rows.
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
    .. [2] N. E. Breslow and D. G. Clayton, "Approximate inference in generalized linear
       mixed models", Journal of the American Statistical Association 88 (1993), 9-25.
    """
    if covariance not in COVARIANCES:
        raise ValueError(
            f"covariance must be one of {COVARIANCES}, got {covariance!r}."
        )
    if not len(codes):
        raise ValueError("Learning a prior needs at least one task with rows.")
    present, codes = np.unique(codes, return_inverse=True)
    n_columns = 1 if n_classes == 2 else n_classes
    start = np.zeros((n_columns, features.shape[1])) if center is None else center
    data = LogisticData(features, labels, codes, len(present), n_classes, start)
    groups = default_ridge_groups(features.shape[1], n_base, n_products=n_products)
    varying = varying_columns(features.shape[1], n_base, n_products)
    if covariance != "auto":
        return _fit_structure(data, covariance, groups, max_iter, varying).prior
    names = dict.fromkeys(["none", *candidates(len(present), len(varying))])
    fits = [_fit_structure(data, name, groups, max_iter, varying) for name in names]
    if n_base and center is not None:
        # The pooled model as it is, corrected by the task in terms of its prediction.
        columns = np.r_[0, len(groups) - n_base : len(groups)]
        few, known = data.columns(columns), np.full(len(columns), -1)
        names = dict.fromkeys(["none", *candidates(len(present), len(columns))])
        fits += [_fit_structure(few, name, known, max_iter) for name in names]
    frequencies = _frequencies(data) if ordered else [None]
    return _choose(fits, len(groups), n_base, frequencies, decay)


@dataclass(frozen=True)
class _Fit:
    """Prior of one structure, and the approximation that it came from."""

    prior: LogisticPrior
    bound: Quadratic

    @property
    def data(self) -> LogisticData:
        return self.bound.data


def _fit_structure(data, covariance, groups, max_iter, varying=None):
    """Variances from as many tasks as time allows, means from all of them."""
    bound = quadratic_of(data.take(_sample(data)))
    theta, last, n_iter = None, -np.inf, 0
    while n_iter < max_iter:
        n_iter += 1
        problem = Problem(bound.parts(), covariance, groups, 1.0, varying)
        theta = _start(problem) if theta is None else theta
        theta = maximise(problem, theta, 5).x
        value = bound.value(problem, theta)
        if abs(value - last) < 0.03 * bound.data.n_tasks:
            break
        last = value
        factor, _, ridge = problem.unpack(theta)
        bound = bound.tighten(factor, ridge)
    factor, _, ridge = problem.unpack(theta)
    if bound.data.n_tasks < data.n_tasks:
        bound = quadratic_of(data).tighten(factor, ridge, 10)
    prior = LogisticPrior(None, factor, factor, ridge, covariance, value, n_iter)
    return _Fit(_with_means(prior, bound), bound)


def _sample(data):
    """Tasks that the variances are learned from, or None for all."""
    # Four evaluations for each one of the Gaussian model, for every column.
    n_columns = 4 * data.target.shape[1]
    return sampled_tasks(data.n_tasks, data.features.shape[1], n_columns)


def _with_means(prior, bound) -> LogisticPrior:
    """Prior with the means, and their uncertainty, that a bound implies."""
    mean, mean_cov = bound.means(prior.between, prior.ridge)
    cov = prior.between @ prior.between.T + mean_cov
    return replace(prior, mean=mean, factor=symmetric_root(cov, _TOLERANCE))


def _start(problem):
    found = expectation_maximisation(
        problem.parts, problem.groups, fixed_noise=1.0, varying=problem.varying
    )
    return problem.start(*found[:3])


def _frequencies(data):
    """Ways to take the class frequencies of support rows: as they come, or less."""
    counts = np.bincount(data.labels, minlength=data.n_classes) + 1.0
    share = counts / counts.sum()
    return [None, ClassFrequencies(share, _FREQUENCY_ROWS)]


def _choose(
    fits: list[_Fit], n_features: int, n_base: int, frequencies: list, decay: float
) -> LogisticPrior:
    """Prior, scale and row weight that predict later rows of new tasks best.

    Folds are over tasks, and each is judged with the means that the others give. The
    likelihood counts rows as independent; where they are not, as in windows of one
    activity after another, it asks for more adaptation than pays, and this does not.
    """
    n_tasks = fits[0].data.n_tasks
    sample = _sample(fits[0].data)
    sample = np.arange(n_tasks) if sample is None else sample
    fold = np.random.default_rng(0).permutation(len(sample)) % N_FOLDS
    losses = [
        [
            later_loss(fit.data.take(sample[fold == k]), trial, decay)
            for fit in fits
            for trial in versions(_without(fit, sample[fold != k]), frequencies)
        ]
        for k in np.unique(fold)
    ]
    trials = [trial for fit in fits for trial in versions(fit.prior, frequencies)]
    chosen = trials[_cautious_argmin(np.concatenate(losses, axis=1), trials)]
    return _embed(chosen, n_features, n_base)


def _cautious_argmin(losses: np.ndarray, trials: list[LogisticPrior]) -> int:
    """Trial of the smallest loss, but one that is safer if it comes close.

    Close is within a standard error over tasks. Rows that come in order are taken to
    come in stretches. And a pooled model is kept as it is: its out-of-fold predictions
    come from fewer tasks than those for new tasks, which makes correcting them look
    better than it is.
    """
    kept = np.arange(len(trials))
    for safe in (
        [t.frequencies is not None or t.covariance == "none" for t in trials],
        [trial.ridge[0] == FIXED_RIDGE for trial in trials],
    ):
        kept = _safe_if_close(losses, kept, np.array(safe)[kept])
    return int(kept[np.argmin(losses[kept].sum(1))])


def _safe_if_close(losses, kept, safe):
    """Of the trials `kept` those that are safe, or the others if clearly better."""
    if safe.all() or not safe.any():
        return kept
    best = [part[np.argmin(losses[part].sum(1))] for part in (kept[safe], kept[~safe])]
    gap = losses[best[0]] - losses[best[1]]
    close = gap.mean() < gap.std() / np.sqrt(len(gap))
    return kept[safe] if close else kept[~safe]


def _without(fit, rest):
    """Prior whose means come from some tasks only."""
    prior, bound = fit.prior, fit.bound.take(rest)
    return _with_means(prior, bound.tighten(prior.between, prior.ridge, 5))


def _embed(prior, n_features, n_base):
    """Prior over all features from one over the constant and the pooled columns."""
    if prior.mean.shape[1] == n_features:
        return prior
    columns = np.r_[0, n_features - n_base : n_features]
    mean = np.zeros((len(prior.mean), n_features))
    factor = np.zeros((n_features, prior.factor.shape[1]))
    between = np.zeros((n_features, prior.between.shape[1]))
    ridge = np.full(n_features, FIXED_RIDGE)
    mean[:, columns], factor[columns] = prior.mean, prior.factor
    between[columns], ridge[columns] = prior.between, prior.ridge
    return replace(prior, mean=mean, factor=factor, between=between, ridge=ridge)


def versions(prior: LogisticPrior, frequencies=(None,)) -> list[LogisticPrior]:
    """The prior, and versions of it that adapt less, or more.

    More only with a softmax, where few rows give variances that are too small. Each
    with all ways to take class frequencies.
    """
    if prior.covariance == "none":
        return [prior]
    scales = (0.5, 1.0) if len(prior.mean) == 1 else (0.5, 1.0, 2.0)
    return [
        replace(
            prior,
            factor=scale * prior.factor,
            between=scale * prior.between,
            row_weight=weight,
            frequencies=taken,
        )
        for taken in frequencies
        for scale in scales
        for weight in _ROW_WEIGHTS
    ]


def later_loss(
    data: LogisticData, prior: LogisticPrior, decay: float = 1.0
) -> np.ndarray:
    """Log-loss of every task after 2, 5 and 20 of its rows, averaged."""
    position = row_positions(data.codes)
    losses = [_loss_after(data, prior, position < n, decay) for n in SHOTS]
    return np.mean(losses, axis=0)


def _loss_after(data, prior, support, decay) -> np.ndarray:
    """Log-loss of the rows of every task outside the support; zero without any."""
    X, y, codes = data.features, data.labels, data.codes
    rows = X[support], y[support], codes[support]
    weight = aged(codes[support], None, decay)
    state = logistic_posterior(prior, *rows, data.n_tasks, data.n_classes, weight)
    query = ~support
    proba = predict_proba(prior, state, X[query], codes[query])
    loss = -np.log(np.maximum(proba[np.arange(len(proba)), y[query]], 1e-12))
    sizes = np.bincount(codes[query], minlength=data.n_tasks)
    sums = np.bincount(codes[query], loss, minlength=data.n_tasks)
    return sums / np.maximum(sizes, 1)
