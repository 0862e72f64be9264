"""A model for each task, from the rows of that task alone."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..base import MetaClassifierMixin, MetaEstimator, MetaRegressorMixin
from ..base._each_task import (
    class_probabilities,
    fit_each,
    predict_each,
    refuse_errors,
)
from ..base._kept_rows import KeptRowsMixin
from ..tasks._sampler import encode_classes
from ..tasks._table import sum_by_code
from ._base import ESTIMATOR_CONSTRAINT


class LocalClassifier(MetaClassifierMixin, KeptRowsMixin, MetaEstimator):
    """A fresh classifier for each task, fitted on the rows of that task alone.

    Nothing but class frequencies is learned across tasks: what a meta-learner gains
    over this model is what the other tasks are worth.

    Where all tasks share their classes, a task that has shown fewer than two of them is
    predicted by its class frequencies, smoothed by as many imagined rows as there are
    classes, which have the mean frequencies of training tasks. As always with such
    models, a class that is missing from two or more seen ones has probability 0.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn classifier, cloned for each task. None is a logistic
        regression on scaled features. One without `predict_proba` is certain of its
        prediction.
    label_space : {"auto", "shared", "per_task"}, default="auto"
        Whether a label means the same in every task (churn yes or no) or exists only
        inside its task (characters of an alphabet). "auto" takes labels as shared
        when the median task has at least half of all classes.
    n_shots : int, default=5
        Support rows per class of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    class_frequencies_ : ndarray of shape (n_classes,)
        Mean over training tasks; only where labels are shared.
    classes_ : ndarray of shape (n_classes,)
        Shared classes, or the classes of all tasks known so far.
    label_space_ : {"shared", "per_task"}
        What `label_space` came to.
    states_ : TaskStates
        Rows and fitted model of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    PooledClassifier : The other extreme, one model for all tasks.
    skmeta.HierarchicalClassifier : Between the two, as far as the data say.

    Examples
    --------
    >>> from skmeta.baselines import LocalClassifier
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> local = LocalClassifier().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> local.adapt(X[:8], y[:8]).predict_proba(X[8:]).shape
    (12, 2)
    """

    _parameter_constraints: dict = {
        "estimator": ESTIMATOR_CONSTRAINT,
        **MetaClassifierMixin._label_constraints,
        **KeptRowsMixin._parameter_constraints,
    }

    def __init__(
        self,
        estimator=None,
        *,
        label_space="auto",
        n_shots=5,
        support="random",
        group_column=None,
    ):
        self.estimator = estimator
        self.label_space = label_space
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._learn_classes(table, classes)
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        if self.label_space_ == "per_task" and training.counts.max() < 2:
            raise ValueError(
                f"{type(self).__name__} needs a task of at least two rows, but each of "
                f"the {training.n_tasks} tasks has a single one. Does groups= name "
                "tasks, and not rows?"
            )
        if self.label_space_ == "shared":
            counts = _class_counts(training, training.y, len(self.classes_))
            share = counts / counts.sum(axis=1, keepdims=True)
            self.class_frequencies_ = share.mean(axis=0)
        return rows

    def _prior_summary(self, ids):
        if self.label_space_ == "per_task":
            return None
        return super()._prior_summary(ids)

    def _solve(self, table):
        if self.label_space_ == "per_task":
            state = _task_labels(table)
            local, y = encode_classes(table.codes, table.y)[0], table.y
            counts = _class_counts(table, local, state["labels"].shape[1])
            state["proba"] = counts / counts.sum(axis=1, keepdims=True)
        else:
            y, n_classes = self.classes_[table.y], len(self.classes_)
            counts = _class_counts(table, table.y, n_classes)
            prior = n_classes * self.class_frequencies_
            state = {"proba": (counts + prior) / (table.counts[:, None] + n_classes)}
        n_seen = (counts > 0).sum(axis=1)
        enough = np.flatnonzero(n_seen > 1)
        default = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        estimator = default if self.estimator is None else self.estimator
        many = bool((n_seen * 2 >= np.maximum(table.counts, 20)).any())
        with _few_rows_per_class() if many else nullcontext():
            return {**state, "model": fit_each(estimator, table, y, enough)}

    def _check_state(self, state, ids):
        refuse_errors(state["model"])

    def _forward(self, state, table):
        proba = state["proba"][table.codes]

        def predict(t, model, X):
            labels = self.classes_
            if "labels" in state:
                labels = state["labels"][t, : state["n_labels"][t]]
            return class_probabilities(model, X, labels)

        for rows, part in predict_each(predict, state["model"], self._flattened(table)):
            proba[rows, : part.shape[1]] = part
        return proba

    def _to_proba(self, output):
        return output


class LocalRegressor(MetaRegressorMixin, KeptRowsMixin, MetaEstimator):
    """A fresh regressor for each task, fitted on the rows of that task alone.

    Nothing but a mean is learned across tasks: what a meta-learner gains over this
    model is what the other tasks are worth. A task of which no row is known is
    predicted by the mean of the means of training tasks.

    Parameters
    ----------
    estimator : estimator, default=None
        Any scikit-learn regressor, cloned for each task. None is a ridge regression
        with penalty 1 on scaled features, which a single row suffices for.
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
    target_mean_ : float
        Mean of the means of training tasks.
    states_ : TaskStates
        Rows and fitted model of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    PooledRegressor : The other extreme, one model for all tasks.
    skmeta.HierarchicalRegressor : Between the two, as far as the data say.

    Examples
    --------
    >>> from skmeta.baselines import LocalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> local = LocalRegressor().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> local.adapt(X[:5], y[:5]).predict(X[5:]).shape
    (15,)
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

    def _meta_fit(self, table, *, resume):
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        sums = sum_by_code(training.y, training.codes, training.n_tasks)
        self.target_mean_ = float((sums / training.counts).mean())
        return rows

    def _solve(self, table):
        default = make_pipeline(StandardScaler(), Ridge())
        estimator = default if self.estimator is None else self.estimator
        enough = np.flatnonzero(table.counts)
        return {"model": fit_each(estimator, table, table.y, enough)}

    def _check_state(self, state, ids):
        refuse_errors(state["model"])

    def _forward(self, state, table):
        y = np.full(len(table.X), self.target_mean_)

        def predict(t, model, X):
            return model.predict(X)

        for rows, part in predict_each(predict, state["model"], self._flattened(table)):
            y[rows] = part
        return y


def _class_counts(table, codes, n_classes):
    one_hot = np.eye(n_classes)[codes]
    return sum_by_code(one_hot, table.codes, table.n_tasks)


def _task_labels(table):
    """Labels of each task, padded, and their number."""
    _, values, offsets = encode_classes(table.codes, table.y)
    counts = np.diff(offsets)
    slot = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
    return {"labels": values[offsets[:-1, None] + slot], "n_labels": counts}


@contextmanager
def _few_rows_per_class():
    """It is no sign of a regression problem here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        yield
