"""Learning the Gaussian prior over task weights from sufficient statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ._evidence import evidence, marginalise, shared_mean
from ._gaussian import Prior, posterior
from ._optimise import (
    NOISE_FLOOR,
    Problem,
    default_ridge_groups,
    expectation_maximisation,
    maximise,
    varying_columns,
)
from ._serial import SerialStatistics, log_jacobian, whitened
from ._statistics import Statistics

COVARIANCES = ("auto", "none", "intercept", "diagonal", "low_rank", "full")
# Above so many features correlations are left out (a full covariance, any covariance):
# they cost much time, and with the usual number of tasks they are not identified.
_MAX_FULL, _MAX_CORRELATED = 16, 32
# Tasks times cubed features for one evaluation of the marginal likelihood: 0.05 s.
_BUDGET = 3e7
# What "auto" chooses from, and after how many rows of a task it judges. A row weight of
# 0.1 is a gamble with few tasks: where it is chosen it may help or harm much.
_ROW_WEIGHTS, SHOTS, N_FOLDS = (0.3, 1.0), (2, 5, 20), 5
# Correlations of consecutive errors that are tried: a memory of 2 to 50 rows.
_SERIAL = (0.5, 0.8, 0.9, 0.95, 0.98)


def fit_prior(
    statistics: Statistics,
    covariance: str = "auto",
    *,
    early: Sequence[Statistics] = (),
    recent: Sequence[Statistics] = (),
    whole: Statistics | None = None,
    n_base: int = 0,
    n_products: int = 0,
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
        Structure of the covariance between tasks. With "auto" structure and weight of
        support rows are those that predict the later rows of held-out training tasks
        from their `early` ones, see `choose_by_prediction`.
    early : sequence of Statistics, default=()
        Statistics of the first few rows of the same tasks, for one or more numbers of
        rows, the most rows last. Where they know the order of the rows, errors may be
        serially correlated, see `error_models`. Without them, or where no task has
        later rows, "auto" takes the highest marginal likelihood less one for each
        parameter (Schwarz's logarithm would be too much: a variance that is not needed
        goes to zero by itself and then costs nothing).
    recent : sequence of Statistics, default=()
        The same rows as adapting sees them, where it lets older ones count less.
    whole : Statistics, default=None
        The rows of the tasks all alike, where older ones count less in `statistics`.
    n_base : int, default=0
        How many of the last features are predictions of a pooled model; their mean
        slopes have a ridge of their own.
    n_products : int, default=0
        How many of the features before these are products of a column with one that
        describes the task. Only the mean depends on them, with a ridge of their own.
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
    seen = statistics.count > 0
    if not seen.any():
        raise ValueError("Learning a prior needs at least one task with rows.")
    center = np.zeros(statistics.n_features) if center is None else center
    whole = statistics if whole is None else whole
    statistics, whole = (s.take(seen).shifted(center) for s in (statistics, whole))
    early, recent = (
        [part.take(seen).shifted(center) for part in parts]
        for parts in (early, recent or early)
    )
    chosen = sampled_tasks(statistics.n_tasks, statistics.n_features)
    chosen = slice(None) if chosen is None else chosen
    sample, whole = statistics.take(chosen), whole.take(chosen)
    early, recent = ([p.take(chosen) for p in parts] for parts in (early, recent))
    varying = varying_columns(statistics.n_features, n_base, n_products)
    names = [covariance]
    if covariance == "auto":
        names = candidates(sample.n_tasks, len(varying))
    if covariance == "auto" and early and names != ["none"]:
        names = ["none", *names]
    groups = default_ridge_groups(
        statistics.n_features, n_base, statistics.task_level(), n_products
    )
    start = expectation_maximisation([sample], groups, varying=varying)
    fits = [
        fit_structure(Problem([sample], name, groups, varying=varying), start, max_iter)
        for name in names
    ]
    if covariance == "auto" and early and isinstance(early[-1], SerialStatistics):
        fits = with_fewer_slopes(fits, sample, early[-1], groups, max_iter)
    best, errors = choose_by_prediction(fits, sample, early, recent, whole)
    prior = replace(best.prior(statistics), **errors)
    return replace(prior, mean=center + prior.mean)


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


@dataclass(frozen=True, eq=False)
class Fit:
    """Variances of one structure that maximise the marginal likelihood.

    Parameters
    ----------
    covariance : str
        Structure.
    factor, noise, ridge : ndarray, float, ndarray
        Variances, as in `Prior`.
    score : float
        Log posterior density of the variances, less one for each parameter.
    n_iter : int
        Evaluations.
    """

    covariance: str
    factor: np.ndarray
    noise: float
    ridge: np.ndarray
    score: float
    n_iter: int

    def prior(self, statistics: Statistics) -> Prior:
        """Prior of a new task whose mean comes from the given tasks."""
        return prior_of(
            statistics,
            self.factor,
            self.noise,
            self.ridge,
            self.covariance,
            self.n_iter,
        )


def fit_structure(problem: Problem, start, max_iter: int) -> Fit:
    """Best variances of one structure, from what EM has found."""
    return fitted(problem, problem.start(*start[:3]), max_iter)


def fitted(problem: Problem, theta: np.ndarray, max_iter: int) -> Fit:
    """Variances that maximise the objective, found from a start."""
    result = maximise(problem, theta, max_iter)
    score = -result.fun * problem.n_rows - problem.n_free
    found = problem.unpack(result.x)
    return Fit(problem.covariance, *found, score, int(result.nfev))


def choose_by_prediction(
    fits: list[Fit],
    statistics: Statistics,
    early: Sequence[Statistics],
    recent: Sequence[Statistics],
    whole: Statistics,
) -> tuple[Fit, dict[str, float]]:
    """Structure and errors of support rows that predict later rows of held-out tasks.

    The likelihood counts the rows of a task as independent. Where they are not, as in
    recordings that drift, it takes the drift for slopes that differ between tasks. What
    is asked for is a good prediction after few rows, so that is what decides: folds
    are over tasks, the mean comes from the other folds, the loss is squared error. The
    simplest candidate within half a standard error (over tasks) of the best is taken.

    Parameters
    ----------
    fits : list of Fit
        From the simplest structure to the richest.
    statistics : Statistics
        Rows of the tasks that means are learned from.
    early : sequence of Statistics
        First rows of the same tasks, for some numbers of rows.
    recent : sequence of Statistics
        The same rows as adapting sees them.
    whole : Statistics
        Rows of the tasks, of which those that are not early are to be predicted.

    Returns
    -------
    fit : Fit
    errors : dict
        How support rows err: ``"row_weight"`` or ``"serial"`` of the prior.
    """
    by_evidence = max(fits, key=lambda fit: fit.score)
    later = np.array([whole.count - part.count > 0 for part in early])
    judged = np.flatnonzero(later.any(0)) if len(early) else []
    if len(fits) == 1 or len(judged) < 2:
        return by_evidence, {}
    trials = [(fit, errors) for fit in fits for errors in error_models(fit, early[-1])]
    fold = np.random.default_rng(0).permutation(statistics.n_tasks) % N_FOLDS
    losses = np.empty((len(trials), len(early), statistics.n_tasks))
    for held_out in (fold == k for k in np.unique(fold)):
        rest = [whole.take(held_out) - part.take(held_out) for part in early]
        parts = [part.take(held_out) for part in recent]
        priors = {fit: fit.prior(statistics.take(~held_out)) for fit in fits}
        for i, (fit, errors) in enumerate(trials):
            prior = replace(priors[fit], **errors)
            losses[i, :, held_out] = later_loss(prior, parts, rest).T
    relative = relative_losses(losses, later, judged)
    # A stronger correlation is not less simple: each structure has its best one.
    best: dict[tuple, int] = {}
    for i in np.argsort(relative.mean(1), kind="stable"):
        fit, errors = trials[i]
        best.setdefault((fit, errors.get("row_weight")), int(i))
    kept = sorted(best.values())
    return trials[kept[_simplest_good(relative[kept])]]


def error_models(fit: Fit, early: Statistics) -> list[dict[str, float]]:
    """How support rows may err, the simplest first.

    Errors of consecutive rows that are correlated tell little of the level of a task
    and of the slopes of features that change as slowly as they do, but all the more of
    the slopes of features that vary from row to row [1]_. Whether they are correlated,
    the likelihood of the early rows knows well; how strongly, prediction must say,
    since an autoregression is only roughly what happens. Where the order of the rows is
    not known, or makes nothing likelier, a row counts fully or in part. Correlations
    that explain less than half of what the best one does are left out.

    References
    ----------
    .. [1] P. J. Diggle, "An approach to the analysis of repeated measurements",
       Biometrics 44 (1988), 959-971.
    """
    if not fit.factor.shape[1]:
        return [{}]
    if isinstance(early, SerialStatistics):
        gains = serial_gains(fit, early)
        if max(gains) > 0:
            pairs = zip(_SERIAL, gains, strict=True)
            return [{"serial": s} for s, gain in pairs if gain >= max(gains) / 2]
    return [{"row_weight": weight} for weight in _ROW_WEIGHTS]


def serial_gains(fit: Fit, early: SerialStatistics) -> list[float]:
    """Log densities of early rows with each correlation, less that without any."""
    independent = serial_density(fit, early, 0.0)
    return [serial_density(fit, early, s) - independent for s in _SERIAL]


def with_fewer_slopes(fits, statistics, early, groups, max_iter) -> list[Fit]:
    """Structures, and before the diagonal one that without slopes drift explains.

    The likelihood of independent rows takes what changes slowly for slopes that differ
    between tasks. With the errors correlated as is likeliest, one slope after the other
    is held to be the same in all tasks, the one first without whose variance the early
    rows are likeliest, until they become less likely; then the variances that are left
    are learned again.
    """
    place = [i for i, fit in enumerate(fits) if fit.covariance == "diagonal"]
    if not place:
        return fits
    fit = fits[place[0]]
    gains = serial_gains(fit, early)
    if max(gains) <= 0:
        return fits
    varying = varying_slopes(fit, early, _SERIAL[int(np.argmax(gains))])
    if len(varying) == len(fit.factor.T):
        return fits
    problem = Problem([statistics], "diagonal", groups, varying=varying)
    slopes = np.full(groups.max(), 1 / len(groups))
    theta = problem.pack(_diagonal(fit)[:, varying], fit.noise, slopes)
    fewer = fitted(problem, theta, max_iter)
    return [*fits[: place[0]], fewer, *fits[place[0] :]]


def varying_slopes(fit: Fit, early: SerialStatistics, serial: float) -> np.ndarray:
    """Features, the constant among them, whose weights differ between tasks."""
    factor = _diagonal(fit)
    varying = np.union1d(0, np.flatnonzero(np.diagonal(factor) > 1e-4))

    def density(kept):
        return serial_density(replace(fit, factor=factor[:, kept]), early, serial)

    best = density(varying)
    while len(varying) > 1:
        trials = [np.delete(varying, i) for i in range(1, len(varying))]
        densities = [density(trial) for trial in trials]
        if max(densities) < best:
            break
        best, varying = max(densities), trials[int(np.argmax(densities))]
    return varying


def _diagonal(fit: Fit) -> np.ndarray:
    """Square factor of a diagonal covariance, features that do not vary included."""
    return np.diag(np.abs(fit.factor).max(1))


def serial_density(fit: Fit, early: Statistics, serial: float) -> float:
    """Log density of the targets of early rows, given the variances."""
    rows = whitened(early, serial)
    value = evidence(rows, fit.factor, fit.noise, fit.ridge).value
    return value + log_jacobian(early, serial)


def later_loss(prior: Prior, early, rest) -> np.ndarray:
    """Mean squared error of the rest of the rows of every task, for each support."""
    losses = []
    for support, query in zip(early, rest, strict=True):
        w = posterior(prior, support)["mean"]
        explained = np.einsum("tpq,tq->tp", query.gram, w)
        energy = query.energy - ((2 * query.cross - explained) * w).sum(1)
        losses.append(energy / np.maximum(query.count, 1))
    return np.array(losses)


def relative_losses(losses, later, judged) -> np.ndarray:
    """Loss of every judged task, averaged over the numbers of rows of the support.

    Losses are relative to the best after as many rows, so that what is gained with more
    rows counts as much as the larger errors with few.
    """
    total = np.where(later, losses, 0.0).sum(2).min(0)
    best = total / np.maximum(later.sum(1), 1)
    relative = (losses + NOISE_FLOOR) / (best + NOISE_FLOOR)[:, None]
    summed = np.where(later, relative, 0.0).sum(1)
    return summed[:, judged] / later.sum(0)[judged]


def _simplest_good(relative: np.ndarray) -> int:
    """First of the trials within half a standard error of the best."""
    gap = relative - relative[np.argmin(relative.mean(1))]
    error = gap.std(1) / np.sqrt(relative.shape[1])
    return int(np.argmax(gap.mean(1) <= 0.5 * error))


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
