"""One ordinary model of the rows of all tasks."""

from __future__ import annotations

from sklearn.ensemble import HistGradientBoostingClassifier

from ..base import MetaClassifierMixin, MetaEstimator, MetaRegressorMixin
from ..base._each_task import class_probabilities
from ..base._kept_rows import KeptRowsMixin
from ._base import (
    ESTIMATOR_CONSTRAINT,
    boosting_regressor,
    fit_clone,
)


class PooledClassifier(MetaClassifierMixin, KeptRowsMixin, MetaEstimator):
    """One ordinary classifier of the rows of all tasks, which knows of no tasks.

    What most people do first. Adapting changes nothing of the prediction: what a
    meta-learner gains over this model is what adapting is worth. Classes mean the same
    in every task.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn classifier. None is `HistGradientBoostingClassifier` with
        ``random_state=0``. One without `predict_proba` is certain of its prediction.
    n_shots : int, default=5
        Support rows per class of a new task in `score`, which are not judged.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on all training rows.
    states_ : TaskStates
        Rows of every known task.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    LocalClassifier : The other extreme, a model for each task.
    TaskEncodedClassifier : A pooled model that sees class frequencies of the task.

    Examples
    --------
    >>> from skmeta.baselines import PooledClassifier
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> pooled = PooledClassifier().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> before = pooled.predict(X[5:])
    >>> bool((pooled.adapt(X[:5], y[:5]).predict(X[5:]) == before).all())
    True
    """

    _parameter_constraints: dict = {
        "estimator": ESTIMATOR_CONSTRAINT,
        **KeptRowsMixin._parameter_constraints,
    }

    def __init__(
        self, estimator=None, *, n_shots=5, support="random", group_column=None
    ):
        self.estimator = estimator
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    #: There is one model, so classes mean the same in every task.
    label_space = "shared"

    _adapts = False

    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._learn_classes(table, classes)
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        self.estimator_ = fit_clone(
            self.estimator,
            HistGradientBoostingClassifier(random_state=0),
            training.X,
            self.classes_[training.y],
        )
        return rows

    def _solve(self, table):
        return {"n_rows": table.counts}

    def _forward(self, state, table):
        X = self._flat(table)
        return class_probabilities(self.estimator_, X, self.classes_)

    def _to_proba(self, output):
        return output


class PooledRegressor(MetaRegressorMixin, KeptRowsMixin, MetaEstimator):
    """One ordinary regressor of the rows of all tasks, which knows of no tasks.

    What most people do first. Adapting changes nothing of the prediction: what a
    meta-learner gains over this model is what adapting is worth.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn regressor. None is `HistGradientBoostingRegressor` with
        ``random_state=0`` on a standardised target.
    n_shots : int, default=5
        Support rows of a new task in `score`, which are not judged.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on all training rows.
    states_ : TaskStates
        Rows of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    LocalRegressor : The other extreme, a model for each task.
    ShrunkOffsetRegressor : A pooled model, moved by what it misses in the task.

    Examples
    --------
    >>> from skmeta.baselines import PooledRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> pooled = PooledRegressor().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> before = pooled.predict(X[5:])
    >>> bool((pooled.adapt(X[:5], y[:5]).predict(X[5:]) == before).all())
    True
    """

    _parameter_constraints: dict = {
        "estimator": ESTIMATOR_CONSTRAINT,
        **KeptRowsMixin._parameter_constraints,
    }

    def __init__(
        self, estimator=None, *, n_shots=5, support="random", group_column=None
    ):
        self.estimator = estimator
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    _adapts = False

    def _meta_fit(self, table, *, resume):
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        self.estimator_ = fit_clone(
            self.estimator,
            boosting_regressor(),
            training.X,
            training.y,
        )
        return rows

    def _solve(self, table):
        return {"n_rows": table.counts}

    def _forward(self, state, table):
        return self.estimator_.predict(self._flat(table))
