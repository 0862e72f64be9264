"""Sets of classes of calibrated coverage for tasks that were not seen."""

from __future__ import annotations

import numpy as np
from sklearn.utils._param_validation import StrOptions

from ..base import MetaClassifierMixin
from ..hierarchical import HierarchicalClassifier
from ._conformal import Conformal, inner_state


class ConformalClassifier(MetaClassifierMixin, Conformal):
    """Sets of classes that hold the true one of a new task as often as they say.

    Wraps any classifier of this library. Fitting it holds out tasks in turn, adapts to
    a few rows of each, and notes how improbable the true classes of its other rows
    were held. The set of a row of a new task has all classes that are more probable
    than that for the given share of held-out tasks with as many support rows.

    What is exchangeable are tasks, not rows: each task has the same weight, however
    many rows it has, and so has the new one [1]_, [2]_. So coverage is that of a random
    row of a random new task. It is not that of every single task: some are covered
    more often, some less. What can be proved is for a learner that has not seen the
    calibration tasks; here, as with every cross-conformal method, the learner used in
    the end has seen them all, and coverage holds closely in practice.

    Parameters
    ----------
    estimator : meta-learner, default=None
        Any classifier of this library; None takes a `HierarchicalClassifier`.
        Preprocessing goes in front: ``make_pipeline(scaler, ConformalClassifier())``.
    confidence_level : float or array-like of float, default=0.9
        Share of rows whose set should hold the true class. It may be changed after
        fit.
    conformity_score : {"lac", "aps"}, default="lac"
        "lac" takes all classes above one probability: the smallest sets on average,
        which may be empty [3]_. "aps" takes the most probable classes up to a total
        probability, which covers easy and hard rows more evenly and is never
        empty [4]_; it is not randomised.
    shots : array-like of int, default=(0, 1, 2, 5, 10, 20, 50)
        Numbers of support rows to calibrate for, per class where classes belong to
        their task (0 is then left out). A task is given the quantile for the support
        rows that it has, interpolated in the logarithm of one plus their number; above
        the largest number, that of the largest.
    n_draws : int, default=5
        Random supports of each held-out task.
    support : {"random", "first"}, default="random"
        Which rows of held-out tasks are support, also in `score`: random draws, or the
        first in row order (then there is one draw), as a new user's history would be.
    correction : {"leave_one_out", "hcp"}, default="leave_one_out"
        How the quantile allows for there being few tasks. "leave_one_out" asks which
        quantile of all other tasks covers each held-out task in turn, and takes the one
        that covers them as often as wanted, smoothed over the mass of one task: no
        proof, and in simulations an excess of less than two points from nine tasks on.
        "hcp" is hierarchical conformal prediction [2]_, which lets the new task be
        covered not at all: its guarantee costs up to ``1 / (n_tasks + 1)`` of excess
        coverage.
    cv : int, splitter or list of (train, test), default=5
        Folds over tasks. The estimator is trained once for each, and on all tasks.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and draws.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Shared classes, or the classes of all tasks known so far.
    label_space_ : {"shared", "per_task"}
        What labels mean to the estimator.
    estimator_ : meta-learner
        Fitted on all tasks; what is known of each task is in `states_`.
    shots_ : ndarray
        Numbers of support rows that were calibrated for.
    score_distributions_ : list of ScoreDistribution or None
        Conformity scores for each of them; None where no task had enough rows.
    states_ : TaskStates
        Support and state of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    ConformalRegressor : Intervals.

    Notes
    -----
    A level of 0.9 needs nine tasks, 0.95 nineteen: with fewer no smaller set than that
    of all classes is sure to hold the true one, so sets are full, with a warning.
    Classes can be predicted all the same. `partial_fit` judges new tasks before it
    learns from them.

    References
    ----------
    .. [1] Dunn, Wasserman and Ramdas. "Distribution-free prediction sets for two-layer
       hierarchical models", Journal of the American Statistical Association 118, 2022.
    .. [2] Lee, Barber and Willett. "Distribution-free inference with hierarchical
       data", arXiv:2306.06342, 2023.
    .. [3] Sadinle, Lei and Wasserman. "Least ambiguous set-valued classifiers with
       bounded error levels", Journal of the American Statistical Association 114, 2019.
    .. [4] Romano, Sesia and Candes. "Classification with valid and adaptive coverage",
       NeurIPS 2020.

    Examples
    --------
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import ConformalClassifier
    >>> tasks = make_regression_tasks(40, 12, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> meta = ConformalClassifier().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> predicted, sets = meta.adapt(X[:5], y[:5]).predict_set(X[5:])
    >>> predicted.shape, sets.shape
    ((7,), (7, 2, 1))
    """

    _parameter_constraints: dict = {
        **Conformal._parameter_constraints,
        "conformity_score": [StrOptions({"lac", "aps"})],
    }

    _default = HierarchicalClassifier

    def __init__(
        self,
        estimator=None,
        *,
        confidence_level=0.9,
        conformity_score="lac",
        shots=(0, 1, 2, 5, 10, 20, 50),
        n_draws=5,
        support="random",
        correction="leave_one_out",
        cv=5,
        group_column=None,
        random_state=0,
    ):
        self.estimator = estimator
        self.confidence_level = confidence_level
        self.conformity_score = conformity_score
        self.shots = shots
        self.n_draws = n_draws
        self.support = support
        self.correction = correction
        self.cv = cv
        self.group_column = group_column
        self.random_state = random_state

    def predict_set(self, X, groups=None):
        """Predict the class of each row, and a set of classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row, as for `predict`. Rows of an unknown task get the set
            for tasks without support rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictions, as by `predict`.
        sets : bool ndarray of shape (n_samples, n_classes, n_levels)
            Whether each class is in the set, for each confidence level; in the order
            of `classes_`.
        """
        table = self._read_rows(X, groups)
        shape = len(table.X), len(self.classes_), len(self._levels)
        sets = np.zeros(shape, dtype=bool)
        y = np.empty(len(table.X), dtype=self.classes_.dtype)
        widest = np.zeros((1, shape[2]))
        for rows, state, output in self._outputs(table):
            score, columns = self._class_scores(self, table, rows, state, output)
            quantiles = self._quantiles(state)
            widest = np.maximum(widest, quantiles.max(axis=0))
            chosen = score[..., None] <= quantiles[self._task_of(table, rows)][:, None]
            if self.conformity_score == "aps":
                chosen |= (score == score.min(axis=1, keepdims=True))[..., None]
            row, slot = np.nonzero(columns >= 0)
            sets[rows[row], columns[row, slot]] = chosen[row, slot]
            best = columns[np.arange(len(rows)), output.argmax(axis=1)]
            y[rows] = self.classes_[best]
        self._warn_infinite(widest, "Sets hold all classes")
        return table.restore(y), table.restore(sets)

    def _class_scores(self, model, table, rows, state, output):
        """Score of each output class of each row, and its column of `classes_`."""
        columns = model._columns(state)[self._task_of(table, rows)]
        proba = model._to_proba(output)[:, : columns.shape[1]]
        proba = np.where(columns >= 0, proba, 0.0)
        if self.conformity_score == "lac":
            return 1 - proba, columns
        order = np.argsort(-proba, axis=1, kind="stable")
        total = np.cumsum(np.take_along_axis(proba, order, axis=1), axis=1)
        score = np.empty_like(proba)
        np.put_along_axis(score, order, total, axis=1)
        return score, columns

    def _conformity(self, model, query):
        found = np.empty(len(query.X))
        for rows, state, output in model._outputs(query):
            score, columns = self._class_scores(model, query, rows, state, output)
            real = np.maximum(columns, 0)
            true = (model.classes_[real] == query.y[rows][:, None]) & (columns >= 0)
            # A class that the support has not shown has no probability at all.
            found[rows] = np.where(true, score, -np.inf).max(axis=1)
            found[rows[~true.any(axis=1)]] = np.inf
        return found

    @property
    def label_space(self):
        """What labels mean, as the inner estimator has it."""
        return getattr(self._unfitted, "label_space", "shared")

    def _meta_fit(self, table, *, resume, classes=None):
        summary = super()._meta_fit(table, resume=resume, classes=classes)
        self.label_space_ = self.estimator_.label_space_
        if self.label_space_ == "shared":
            self.classes_ = self.estimator_.classes_
        return summary

    def _columns(self, state):
        return super()._columns(inner_state(state))

    def _to_proba(self, output):
        return self.estimator_._to_proba(output)

    def _check_support(self, support):
        self.estimator_._check_support(support.inner)
