"""An alarm for tasks that are unlike any that were seen."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, _fit_context, is_classifier
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from ..adapted import unwrap
from ..exceptions import warn_caller
from ..hierarchical import HierarchicalClassifier, HierarchicalRegressor
from ..tasks import is_task_list
from ..tasks._table import row_positions
from ._episodes import episodes, labels_per_task, task_folds
from ._likelihood import (
    Unrelated,
    blocks,
    log_ratios,
    needs_scales,
    squared_errors,
)
from ._rows import HeldOut, read_task_rows


class TaskNovelty(BaseEstimator):
    """Tell whether a task resembles those that a meta-learner has learned from.

    A few labelled rows of the task are judged by how likely the learner holds their
    targets, row after row: the first by the prior, the next by what was learned from
    those before it. Two other explanations are held against that, that the targets
    belong to other rows of the task, and that they have nothing to do with its
    features; if either is more likely than usual, the task is strange. The same is
    measured of every training task by learners that have not seen it, with as many
    rows. The p-value is conformal: of tasks like the training tasks, at most a share of
    ``alpha`` raises an alarm, up to the approximation that the learner in use has seen
    them [1]_. Between two explanations that are known, the ratio of likelihoods is the
    best test there is [2]_.

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
    n_permutations : int, default=20
        Exchanges of the rows of every task, over which the likelihood of the first of
        the other explanations is averaged. The learner adapts to each, so the cost
        grows with it.
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
    statistics_ : ndarray of shape (n_sizes, n_draws, n_tasks, 2)
        Of every training task with that many rows: logarithm of the likelihood of each
        of the other explanations over that by the learner; higher is stranger. NaN for
        smaller tasks.

    References
    ----------
    .. [1] Laxhammar and Falkman. "Conformal prediction for distribution-independent
       anomaly detection in streaming vessel data", StreamKDD 2010.
    .. [2] Neyman and Pearson. "On the problem of the most efficient tests of
       statistical hypotheses", Philosophical Transactions A 231, 1933.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import TaskNovelty
    >>> tasks = make_regression_tasks(60, 20, random_state=0)
    >>> novelty = TaskNovelty(n_shots=[10]).fit(tasks[:50])
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
        "n_permutations": [Interval(Integral, 1, None, closed="left")],
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
        n_permutations=20,
        support="random",
        cv=5,
        random_state=0,
    ):
        self.estimator = estimator
        self.alpha = alpha
        self.n_shots = n_shots
        self.n_draws = n_draws
        self.n_permutations = n_permutations
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
        classifier = is_classifier(meta)
        self._unrelated = Unrelated.of(rows.y, classifier, self._plan.per_class)
        shape = len(self._plan.shots), self._plan.n_draws, rows.n_tasks, 2
        statistics = np.full(shape, np.nan)
        folds = [
            (HeldOut(rows.take(train).fit(estimator, rows.y), rows.take(test)), test)
            for train, test in task_folds(self.cv, rows.n_tasks, self._plan.seed)
        ]
        self._scales = self._measure_scales([held_out for held_out, _ in folds])
        for held_out, test in folds:
            statistics[:, :, test] = self._statistics(held_out)
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
            In the order of the list, or of the sorted ids: logarithm of the likelihood
            of the targets by the learner, over the sum of those of the two other
            explanations.
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
        found = self._statistics(HeldOut(self.estimator_, rows), size)[:, 0]
        score, p, least = np.empty((3, rows.n_tasks))
        for i in np.unique(size):
            known = self.statistics_[i]
            known = known[:, np.isfinite(known).all(axis=(0, 2))]
            here = size == i
            usual = np.logaddexp(*np.moveaxis(known, -1, 0))
            new = np.logaddexp(*found[i, here].T)
            # Every training task counts once, whatever the number of draws.
            as_strange = usual >= new[:, None, None] - 1e-12
            at_least = as_strange.mean(axis=1).sum(axis=1)
            score[here], least[here] = -new, 1 / (known.shape[1] + 1)
            p[here] = (1 + at_least) * least[here]
        return score, p, least

    def _measure_scales(self, folds):
        """Errors by block of a learner that states none, over all training tasks."""
        if not needs_scales(folds[0].meta):
            return None
        largest = max(_counts(fold.rows, False).max() for fold in folds)
        n_blocks = len(list(blocks(min(largest, self._plan.shots[-1]))))
        sums = np.zeros((n_blocks, 2))
        for fold in folds:
            rank = self._ranks(fold.rows, 0)
            found = squared_errors(fold, rank, rank < self._plan.shots[-1])
            sums[: len(found)] += found
        return np.sqrt(np.maximum(sums[:, 0] / np.maximum(sums[:, 1], 1), 1e-24))

    def _ranks(self, rows, draw):
        """Place of each row in its task, or among the rows of its class in the task."""
        segment = rows.codes
        if self._plan.per_class:
            labels = np.unique(rows.y, return_inverse=True)[1]
            pairs = np.stack([rows.codes, labels])
            segment = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
        order = np.random.default_rng((self._plan.seed, draw)).random(len(segment))
        return row_positions(segment, order if self._plan.support == "random" else None)

    def _statistics(self, held_out, wanted=None):
        """Measures of every task for each number of rows and draw.

        Parameters
        ----------
        held_out : HeldOut
            Tasks that the estimator has not seen.
        wanted : ndarray of shape (n_tasks,), default=None
            The one number, by position, of each task, of which one draw is made; None
            for all numbers that it has rows for.

        Returns
        -------
        ndarray of shape (n_sizes, n_draws, n_tasks, 2)
            NaN where a task has too few rows.
        """
        rows, plan = held_out.rows, self._plan
        counts = _counts(rows, plan.per_class)
        n_draws = plan.n_draws if wanted is None else 1
        found = np.full((len(plan.shots), n_draws, rows.n_tasks, 2), np.nan)
        for draw in range(n_draws):
            rank = self._ranks(rows, draw)
            for i, n_shots in enumerate(plan.shots):
                chosen = counts >= n_shots if wanted is None else wanted == i
                used = (rank < n_shots) & chosen[rows.codes]
                if used.any():
                    rng = np.random.default_rng((plan.seed, draw, i))
                    found[i, draw, chosen] = log_ratios(
                        held_out, used, rank, self._unrelated, self._scales,
                        self.n_permutations, rng,
                    )[chosen]  # fmt: skip
        return found

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
