"""A pooled model that sees the mean target of the task as a feature."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from ..base import MetaClassifierMixin, MetaEstimator, MetaRegressorMixin
from ..base._each_task import class_probabilities
from ..base._kept_rows import KeptRowsMixin
from ..base._shrinkage import fit_shrinkage
from ..tasks._table import sum_by_code
from ._base import (
    ESTIMATOR_CONSTRAINT,
    boosting_regressor,
    fit_clone,
)


class TaskEncodedMixin:
    """More columns: the shrunken mean of what the support showed, and its size."""

    _parameter_constraints: dict = {
        "estimator": ESTIMATOR_CONSTRAINT,
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        **KeptRowsMixin._parameter_constraints,
        "random_state": ["random_state"],
    }

    def _fit_encoded(self, training, values, y, default):
        """Fit the pooled model on columns from random support without the row."""
        self.shrinkage_ = fit_shrinkage(values, training.codes, training.n_tasks)
        rng = check_random_state(self.random_state)
        X = [
            self._with_columns(training.X, *random_support(values, training, rng))
            for _ in range(self.n_repeats)
        ]
        repeated = np.tile(y, self.n_repeats)
        return fit_clone(self.estimator, default, np.concatenate(X), repeated)

    def _with_columns(self, X, sums, counts):
        means = self.shrinkage_.means(sums, counts)
        return np.column_stack([X, means, np.log1p(counts)])

    def _solve(self, table):
        sums = sum_by_code(self._values(table), table.codes, table.n_tasks)
        return {"sums": sums, "counts": table.counts}

    def _encoded(self, state, table):
        sums, counts = state["sums"][table.codes], state["counts"][table.codes]
        return self._with_columns(self._flat(table), sums, counts)


class TaskEncodedClassifier(
    MetaClassifierMixin, TaskEncodedMixin, KeptRowsMixin, MetaEstimator
):
    """Pooled classifier that sees the class frequencies of the task as features.

    Target encoding of the task id, made so that it works for new tasks: columns are
    the class frequencies among support rows, shrunk towards those of all tasks, and
    the logarithm of the number of support rows. In training the support of a row are
    random other rows of its task, from none to all, as in ordered target statistics
    [1]_, so that columns mean in training what they mean in use. Classes mean the same
    in every task.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn classifier. None is `HistGradientBoostingClassifier` with
        ``random_state=0``. One without `predict_proba` is certain of its prediction.
    n_repeats : int, default=4
        How often each training row is shown, each time with other support.
    n_shots : int, default=5
        Support rows per class of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=None
        Seed of the support in training.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on features and the columns of the task.
    shrinkage_ : Shrinkage
        Mean class frequencies, and their variances between and within tasks.
    states_ : TaskStates
        Rows of every known task, and their sums.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    PooledClassifier : Without these columns.

    References
    ----------
    .. [1] Prokhorenkova, Gusev, Vorobev, Dorogush and Gulin. "CatBoost: unbiased
       boosting with categorical features", NeurIPS 2018.

    Examples
    --------
    >>> from skmeta.baselines import TaskEncodedClassifier
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> encoded = TaskEncodedClassifier(random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> encoded.adapt(X[:5], y[:5]).predict_proba(X[5:]).shape
    (15, 2)
    """

    _parameter_constraints: dict = TaskEncodedMixin._parameter_constraints

    def __init__(
        self,
        estimator=None,
        *,
        n_repeats=4,
        n_shots=5,
        support="random",
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_repeats = n_repeats
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column
        self.random_state = random_state

    #: There is one model, so classes mean the same in every task.
    label_space = "shared"

    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._learn_classes(table, classes)
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        self.estimator_ = self._fit_encoded(
            training,
            self._values(training),
            self.classes_[training.y],
            HistGradientBoostingClassifier(random_state=0),
        )
        return rows

    def _values(self, table):
        return np.eye(len(self.classes_))[table.y]

    def _forward(self, state, table):
        X = self._encoded(state, table)
        return class_probabilities(self.estimator_, X, self.classes_)

    def _to_proba(self, output):
        return output


class TaskEncodedRegressor(
    MetaRegressorMixin, TaskEncodedMixin, KeptRowsMixin, MetaEstimator
):
    """Pooled regressor that sees the mean target of the task as a feature.

    Target encoding of the task id, made so that it works for new tasks: columns are
    the mean target of support rows, shrunk towards that of all tasks, and the
    logarithm of the number of support rows. In training the support of a row are
    random other rows of its task, from none to all, as in ordered target statistics
    [1]_, so that columns mean in training what they mean in use.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn regressor. None is `HistGradientBoostingRegressor` with
        ``random_state=0`` on a standardised target.
    n_repeats : int, default=4
        How often each training row is shown, each time with other support.
    n_shots : int, default=5
        Support rows of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=None
        Seed of the support in training.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on features and the columns of the task.
    shrinkage_ : Shrinkage
        Mean target of tasks, and its variances between and within tasks.
    states_ : TaskStates
        Rows of every known task, and their sums.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    PooledRegressor : Without these columns.
    ShrunkOffsetRegressor : Adds a shrunken mean residual to the prediction.

    References
    ----------
    .. [1] Prokhorenkova, Gusev, Vorobev, Dorogush and Gulin. "CatBoost: unbiased
       boosting with categorical features", NeurIPS 2018.

    Examples
    --------
    >>> from skmeta.baselines import TaskEncodedRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> encoded = TaskEncodedRegressor(random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> encoded.adapt(X[:5], y[:5]).predict(X[5:]).shape
    (15,)
    """

    _parameter_constraints: dict = TaskEncodedMixin._parameter_constraints

    def __init__(
        self,
        estimator=None,
        *,
        n_repeats=4,
        n_shots=5,
        support="random",
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_repeats = n_repeats
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column
        self.random_state = random_state

    def _meta_fit(self, table, *, resume):
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        default = boosting_regressor()
        values = self._values(training)
        self.estimator_ = self._fit_encoded(training, values, training.y, default)
        return rows

    def _values(self, table):
        return table.y[:, None]

    def _forward(self, state, table):
        return self.estimator_.predict(self._encoded(state, table))


def random_support(values, table, rng):
    """Support of every row: random other rows of its task, from none to all of them.

    Rows of a task are put in a random circle, and the support of a row are the ``k``
    before it. The logarithm of ``k + 1`` is uniform, as few shots matter most.

    Returns
    -------
    sums : ndarray of shape (n_rows, n_columns)
        Sum of `values` over the support.
    k : int ndarray of shape (n_rows,)
        Number of support rows.
    """
    n = table.counts[table.codes]
    start = table.offsets[table.codes]
    k = ((n + 1.0) ** rng.uniform(size=len(n))).astype(np.intp) - 1
    k = np.minimum(k, n - 1)
    order = np.lexsort((rng.uniform(size=len(n)), table.codes))
    total = np.zeros((len(n) + 1, values.shape[1]))
    center = values.mean(axis=0)  # keeps differences of long sums exact
    np.cumsum(values[order] - center, axis=0, out=total[1:])
    here, end = np.arange(len(n)), start + n
    before = total[here] - total[np.maximum(here - k, start)]
    around = total[end] - total[np.minimum(here - k + n, end)]
    sums, sizes = np.empty(values.shape), np.empty_like(k)
    sums[order] = before + around + k[:, None] * center
    sizes[order] = k
    return sums, sizes
