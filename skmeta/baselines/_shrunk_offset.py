"""A pooled model, moved by the mean of what it misses in the task."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils._param_validation import Interval

from ..base import MetaEstimator, ProbabilisticRegressorMixin
from ..base._kept_rows import KeptRowsMixin
from ..base._shrinkage import fit_shrinkage
from ..tasks._table import sum_by_code
from ._base import (
    ESTIMATOR_CONSTRAINT,
    boosting_regressor,
    fit_clone,
)


class ShrunkOffsetRegressor(ProbabilisticRegressorMixin, KeptRowsMixin, MetaEstimator):
    """Pooled regressor plus a shrunken mean residual of the task.

    A random intercept on the residuals of any model, by empirical Bayes: the offset of
    a task is the mean residual of its support rows times
    ``between / (between + within / k)``, with variances of residuals between and within
    tasks by the method of moments [1]_.

    Residuals are those of models that have not seen the task (folds over tasks).
    Tasks of `fit` are also predicted by the model of their fold, because a model that
    was fitted on a task may know its offset already. With a single task there is no
    variance between tasks, and so no offset.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn regressor. None is `HistGradientBoostingRegressor` with
        ``random_state=0`` on a standardised target.
    cv : int, default=5
        Folds over tasks, at most the number of tasks.
    n_shots : int, default=5
        Support rows of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on all training rows; predicts new tasks.
    estimators_ : list of estimators
        Fitted without the tasks of one fold each; empty after a single task.
    between_ : float
        Variance of the mean residual between tasks.
    within_ : float
        Variance of residuals within tasks.
    states_ : TaskStates
        Rows and offset of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    MixedModelRegressor : Linear, fitted jointly with the offsets.
    skmeta.HierarchicalRegressor : With `base_estimator`, also slopes of tasks.

    References
    ----------
    .. [1] Searle, Casella and McCulloch. "Variance components", Wiley, 1992.

    Examples
    --------
    >>> from skmeta.baselines import ShrunkOffsetRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> offset = ShrunkOffsetRegressor().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = offset.adapt(X[:5], y[:5]).predict(X[5:], return_std=True)
    >>> mean.shape, std.shape
    ((15,), (15,))
    """

    _parameter_constraints: dict = {
        "estimator": ESTIMATOR_CONSTRAINT,
        "cv": [Interval(Integral, 2, None, closed="left")],
        **KeptRowsMixin._parameter_constraints,
    }

    def __init__(
        self,
        estimator=None,
        *,
        cv=5,
        n_shots=5,
        support="random",
        group_column=None,
    ):
        self.estimator = estimator
        self.cv = cv
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    def _meta_fit(self, table, *, resume):
        rows = self._summarize(table, training=True)
        training = self._training_rows(rows, resume)
        X, y = training.X[:, :-1], training.y
        self.estimator_ = self._fitted(X, y)
        residual = y - self._cross_fit(X, y, training)
        shrinkage = fit_shrinkage(
            residual[:, None], training.codes, training.n_tasks, center=np.zeros(1)
        )
        self.between_, self.within_ = shrinkage.between, shrinkage.within
        self._shrinkage = shrinkage
        return rows

    def _fitted(self, X, y):
        default = boosting_regressor()
        return fit_clone(self.estimator, default, X, y)

    def _cross_fit(self, X, y, training):
        """Predictions of rows by models without their task; keeps these models."""
        codes = training.codes
        self.estimators_, self._fold_of = [], {}
        prediction = self.estimator_.predict(X)
        for fold, (train, test) in enumerate(_folds(codes, self.cv)):
            model = self._fitted(X[train], y[train])
            prediction[test] = model.predict(X[test])
            if training.n_tasks > 1:
                self.estimators_.append(model)
                tasks = np.unique(codes[test])
                self._fold_of.update((training.ids[t], fold) for t in tasks)
        return prediction

    def _summarize(self, table, training=False):
        """Rows with one more column: whether `fit` brought them.

        An id does not tell, as each list of tasks has the ids 0, 1, ...
        """
        table = super()._summarize(table)
        mark = np.full((len(table.X), 1), float(training))
        return replace(table, X=np.hstack([table.X, mark]))

    def _solve(self, table):
        marked = sum_by_code(table.X[:, -1], table.codes, table.n_tasks) > 0
        known = [self._fold_of.get(task, -1) for task in table.ids]
        fold = np.where(marked, known, -1)
        residual = table.y - self._pooled(table.X[:, :-1], fold[table.codes])
        sums = sum_by_code(residual[:, None], table.codes, table.n_tasks)
        offset = self._shrinkage.means(sums, table.counts)[:, 0]
        variance = self.between_ * (1 - self._shrinkage.weight(table.counts))
        return {"fold": fold, "offset": offset, "variance": variance}

    def _pooled(self, X, fold):
        """Prediction of each row by the model of its fold, -1 for that of all rows."""
        prediction = np.empty(len(X))
        for f in np.unique(fold):
            model = self.estimator_ if f < 0 else self.estimators_[f]
            prediction[fold == f] = model.predict(X[fold == f])
        return prediction

    def _forward(self, state, table, return_std=False):
        fold, codes = state["fold"][table.codes], table.codes
        mean = self._pooled(self._flat(table), fold) + state["offset"][codes]
        if not return_std:
            return mean
        return mean, np.sqrt(state["variance"][codes] + self.within_)


def _folds(codes, cv):
    """Folds over tasks; over rows, for the noise alone, where there is one task."""
    n_tasks, n_rows = codes[-1] + 1, len(codes)
    if n_tasks > 1:
        return GroupKFold(min(cv, n_tasks)).split(codes, groups=codes)
    if n_rows == 1:
        return []
    return KFold(min(cv, n_rows), shuffle=True, random_state=0).split(codes)
