"""An alarm for tasks that are unlike any that were seen."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, _fit_context, is_classifier
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from ..adapted import unwrap
from ..exceptions import warn_caller
from ..hierarchical import HierarchicalClassifier, HierarchicalRegressor
from ..tasks import is_task_list
from ..tasks._table import ranges
from ._episodes import episodes, labels_per_task, task_folds
from ._rows import HeldOut, read_task_rows

#: Parts that the rows of a task are left out in.
_N_PARTS = 5


class TaskNovelty(BaseEstimator):
    """Tell whether a task resembles those that a meta-learner has learned from.

    A few labelled rows of the task are judged: how well the prior predicts them, how
    well they predict each other (some are left out, the learner adapts to the rest),
    and how much better than the task's own mean or class frequencies that is. The same
    is measured of every training task by learners that have not seen it, with as many
    rows, and a task is novel where one of the three is far out. The p-value is
    conformal: of tasks like the training tasks, at most a share of ``alpha`` raises an
    alarm, up to the approximation that the learner in use has seen them [1]_.

    Conventions are those of scikit-learn's outlier detectors, with tasks in the place
    of rows: 1 for an inlier, -1 for an outlier, and lower scores for stranger tasks.

    Parameters
    ----------
    estimator : meta-learner, or Pipeline or search that ends in one, default=None
        Whose training tasks and predictions define what is usual. None takes a
        `HierarchicalClassifier` where `y` holds labels, else a `HierarchicalRegressor`.
    alpha : float, default=0.05
        Share of ordinary tasks that may raise an alarm. At least ``1 / alpha - 1``
        training tasks are needed for there to be any alarm.
    n_shots : array-like of int, default=(2, 3, 5, 10, 15, 20, 30, 50)
        Numbers of rows to compare, per class where classes belong to their task. Of a
        task the largest number that it has is taken.
    n_draws : int, default=3
        Random choices of these rows of every training task. Of a task that is judged
        there is one.
    support : {"random", "first"}, default="random"
        Random rows, or the first in row order (then there is one choice).
    cv : int, splitter or list of (train, test), default=5
        Folds over tasks.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and choices.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on all tasks.
    n_shots_ : ndarray of shape (n_sizes,)
        Numbers of rows that at least one training task has.
    statistics_ : ndarray of shape (n_sizes, n_draws, n_tasks, 3)
        Of every training task with that many rows: logarithm of the loss of the prior,
        of the loss when adapted, and of the ratio of that to the loss of the task's own
        constant; higher is stranger. NaN for smaller tasks. The loss is the squared
        error, or the Brier score of classes.

    References
    ----------
    .. [1] Laxhammar and Falkman. "Conformal prediction for distribution-independent
       anomaly detection in streaming vessel data", StreamKDD 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import TaskNovelty
    >>> tasks = make_regression_tasks(60, 20, random_state=0)
    >>> novelty = TaskNovelty().fit(tasks[:50])
    >>> bool((novelty.predict(tasks[50:]) == 1).mean() > 0.7)
    True

    Tasks whose targets have been shuffled are unlike those.

    >>> rng = np.random.default_rng(0)
    >>> shuffled = [(X, rng.permutation(y)) for X, y in tasks[50:]]
    >>> bool((novelty.predict(shuffled) == -1).mean() > 0.5)
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "n_shots": ["array-like", Interval(Integral, 2, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "support": [StrOptions({"random", "first"})],
        "cv": [Interval(Integral, 2, None, closed="left"), HasMethods("split"), list],
        "random_state": ["random_state"],
    }

    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        estimator=None,
        *,
        alpha=0.05,
        n_shots=(2, 3, 5, 10, 15, 20, 30, 50),
        n_draws=3,
        support="random",
        cv=5,
        random_state=0,
    ):
        self.estimator = estimator
        self.alpha = alpha
        self.n_shots = n_shots
        self.n_draws = n_draws
        self.support = support
        self.cv = cv
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, groups=None):
        """Fit the estimator, and measure how its training tasks look when held out.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks, or the rows of all tasks.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        self : object
            Fitted alarm.
        """
        estimator = self.estimator
        if estimator is None:
            estimator = _default_for(X, y)
        meta, rows = unwrap(estimator)[1], read_task_rows(estimator, X, y, groups)
        self._plan = self._make_plan(meta, rows)
        shape = len(self._plan.shots), self._plan.n_draws, rows.n_tasks, 3
        statistics = np.full(shape, np.nan)
        for train, test in task_folds(self.cv, rows.n_tasks, self._plan.seed):
            fitted = rows.take(train).fit(estimator, rows.y)
            held_out = HeldOut(fitted, rows.take(test))
            statistics[:, :, test] = _statistics(held_out, self._plan)
        measured = np.isfinite(statistics).any(axis=(1, 2, 3))
        if not measured.any():
            raise ValueError(
                f"No task has n_shots={self._plan.shots[0]} rows and so none can be "
                "measured; pass larger tasks or a smaller n_shots."
            )
        self.n_shots_ = np.array(self._plan.shots)[measured]
        self._plan = replace(self._plan, shots=tuple(self.n_shots_.tolist()))
        self.statistics_ = statistics[measured]
        self.estimator_ = rows.fit(estimator)
        return self

    def _make_plan(self, meta, rows):
        per_class = is_classifier(meta) and labels_per_task(meta, rows)
        plan = episodes(
            self.n_shots,
            self.n_draws,
            self.support,
            per_class,
            self.random_state,
            meta,
            rows,
        )
        if plan.shots[0] < 2:
            raise ValueError(
                "n_shots must be at least 2: a single row cannot be left out and "
                f"predicted from others; got {self.n_shots!r}."
            )
        return plan

    def score_samples(self, X, y=None, groups=None):
        """How usual each task is; lower is stranger.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Labelled rows of new tasks.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it (and without a `group_column`) the rows are
            one task.

        Returns
        -------
        ndarray of shape (n_tasks,)
            In the order of the list, or of the sorted ids: minus the smooth maximum of
            the three measures, each by how many robust standard deviations it is above
            the median of the training tasks.
        """
        return self._compare(X, y, groups)[0]

    def p_values(self, X, y=None, groups=None):
        """Share of tasks like the training tasks that are at least as strange.

        Parameters
        ----------
        X, y, groups
            As for `score_samples`.

        Returns
        -------
        ndarray of shape (n_tasks,)
            At least ``1 / (n_training_tasks + 1)``.
        """
        return self._compare(X, y, groups)[1]

    def predict(self, X, y=None, groups=None):
        """Whether each task is like the training tasks.

        Parameters
        ----------
        X, y, groups
            As for `score_samples`.

        Returns
        -------
        ndarray of shape (n_tasks,)
            -1 where the p-value is at most `alpha`, else 1.
        """
        _, p, least = self._compare(X, y, groups)
        if (least > self.alpha).any():
            warn_caller(
                f"No alarm is possible at alpha={self.alpha:g} for some tasks: fit saw "
                f"{round(1 / least.max()) - 1} tasks with as many rows, so no p-value "
                f"is below {least.max():.3g}. Fit with more tasks or raise alpha.",
                UserWarning,
            )
        return np.where(p <= self.alpha, -1, 1)

    def _compare(self, X, y, groups):
        """Score, p-value and smallest possible p-value of each task."""
        check_is_fitted(self)
        meta = unwrap(self.estimator_)[1]
        if not is_task_list(X) and groups is None and meta.group_column is None:
            groups = np.zeros(len(X), dtype=int)
        rows = read_task_rows(self.estimator_, X, y, groups)
        size = self._sizes(rows)
        plan = replace(self._plan, n_draws=1)
        found = _statistics(HeldOut(self.estimator_, rows), plan, size)[:, 0]
        score, p, least = np.empty((3, rows.n_tasks))
        for i in np.unique(size):
            known = self.statistics_[i]
            known = known[:, np.isfinite(known).all(axis=(0, 2))]
            here = size == i
            usual = _strangeness(known, known)
            new = _strangeness(found[i, here], known)
            # Every training task counts once, whatever the number of draws.
            as_strange = usual >= new[:, None, None] - 1e-12
            at_least = as_strange.mean(axis=1).sum(axis=1)
            score[here], least[here] = -new, 1 / (known.shape[1] + 1)
            p[here] = (1 + at_least) * least[here]
        return score, p, least

    def _sizes(self, rows):
        """Position of the largest number of rows that each task has."""
        counts = _counts(rows, self._plan.per_class)
        small = np.flatnonzero(counts < self.n_shots_[0])
        if len(small):
            task = rows.ids[small[0]]
            unit = "rows of its rarest class" if self._plan.per_class else "rows"
            raise ValueError(
                f"Task {task!r} has {counts[small[0]]} {unit}, but at least "
                f"{self.n_shots_[0]} are needed to compare it with the training tasks."
            )
        return np.searchsorted(self.n_shots_, counts, side="right") - 1


def _default_for(X, y):
    if is_task_list(X):
        y = np.concatenate([np.asarray(task[1]).ravel() for task in X])
    labels = not type_of_target(y).startswith("continuous")
    return HierarchicalClassifier() if labels else HierarchicalRegressor()


def _counts(rows, per_class):
    """Rows of each task, or of its rarest class."""
    if not per_class:
        return np.bincount(rows.codes, minlength=rows.n_tasks)
    labels = np.unique(rows.y, return_inverse=True)[1]
    pairs, counts = np.unique(
        np.stack([rows.codes, labels]), axis=1, return_counts=True
    )
    least = np.full(rows.n_tasks, len(rows.y))
    np.minimum.at(least, pairs[0], counts)
    return least


def _strangeness(statistics, known):
    """Smooth maximum of the standardised statistics of each task."""
    center = np.median(known, axis=(0, 1))
    spread = 1.4826 * np.median(np.abs(known - center), axis=(0, 1))
    z = (statistics - center) / np.maximum(spread, 1e-9)
    return logsumexp(z, axis=-1)


def _statistics(held_out, plan, wanted=None):
    """Measures of every task for each number of rows and draw.

    Parameters
    ----------
    held_out : HeldOut
        Tasks that the estimator has not seen.
    plan : Episodes
        Numbers of rows and draws.
    wanted : ndarray of shape (n_tasks,), default=None
        The one number, by position, of each task; None for all that it has.

    Returns
    -------
    ndarray of shape (n_sizes, n_draws, n_tasks, 3)
        NaN where a task has too few rows.
    """
    rows = held_out.rows
    counts = _counts(rows, plan.per_class)
    found = np.full((len(plan.shots), plan.n_draws, rows.n_tasks, 3), np.nan)
    segment = rows.codes
    if plan.per_class:
        labels = np.unique(rows.y, return_inverse=True)[1]
        segment = np.unique(np.stack([rows.codes, labels]), axis=1, return_inverse=True)
        segment = segment[1].ravel()
    for draw in range(plan.n_draws):
        rng = np.random.default_rng((plan.seed, draw))
        order = rng.random(len(segment))
        rank = _rank(segment, order if plan.support == "random" else None)
        for i, n_shots in enumerate(plan.shots):
            chosen = counts >= n_shots
            if wanted is not None:
                chosen &= wanted == i
            used = (rank < n_shots) & chosen[rows.codes]
            if used.any():
                found[i, draw, chosen] = _measure(held_out, used, rank)[chosen]
    return found


def _rank(segment, key):
    """Place of each row within its segment, by key or in row order."""
    key = np.arange(len(segment)) if key is None else key
    order, counts = np.lexsort((key, segment)), np.bincount(segment)
    rank = np.empty(len(segment), dtype=int)
    rank[order] = ranges(np.zeros_like(counts), counts)
    return rank


def _measure(held_out, used, rank):
    """The three statistics of every task, from the rows that are used."""
    rows, part = held_out.rows, rank % _N_PARTS
    classifier = is_classifier(held_out._meta)
    losses = np.zeros((3, len(used)))
    losses[0, used] = _loss(held_out, np.zeros_like(used), used)
    # There are at least two rows, so something is left to adapt to.
    for p in np.unique(part[used]):
        query = used & (part == p)
        losses[1, query] = _loss(held_out, used & ~query, query)
    codes = rows.codes[used]
    losses[2, used] = _constant_loss(rows.y[used], codes, classifier)
    sums = [
        np.bincount(codes, part, minlength=rows.n_tasks) for part in losses[:, used]
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums / np.bincount(codes, minlength=rows.n_tasks)
    prior, adapted, constant = np.log(mean + (0.05 if classifier else 1e-12))
    return np.column_stack([prior, adapted, adapted - constant])


def _loss(held_out, support, query):
    """Loss of each query row; 0 where there is nothing to predict from."""
    if not support.any() and not _has_prior(held_out._meta):
        return np.zeros(query.sum())
    meta = held_out.adapted(support)
    X, y, codes = held_out.take(query)
    if not is_classifier(held_out._meta):
        return np.square(y - meta.predict(X, groups=codes))
    proba = meta.predict_proba(X, groups=codes)
    return _brier(proba, y[:, None] == meta.classes_)


def _has_prior(meta):
    return meta._prior_summary([None]) is not None


def _brier(proba, hot):
    return np.square(proba).sum(1) - 2 * (proba * hot).sum(1) + 1


def _constant_loss(y, codes, classifier):
    """Loss of each row for the mean or the class frequencies of its task."""
    hot = y[:, None] == np.unique(y) if classifier else y[:, None]
    _, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), hot.shape[1]))
    np.add.at(sums, codes, hot)
    mean = (sums / counts[:, None])[codes]
    return _brier(mean, hot) if classifier else np.square(hot - mean)[:, 0]
