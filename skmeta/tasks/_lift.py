"""Ordinary transformers in front of a list of tasks."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ._door import is_task_list
from ._task import Task


class PerTask(TransformerMixin, MetaEstimatorMixin, BaseEstimator):
    """Apply an ordinary transformer to every task of a list.

    In a pipeline on rows a transformer needs no lift; in one on a list of ``(X, y)``
    tasks it does.

    Parameters
    ----------
    transformer : transformer
        Any transformer of rows.
    refit : bool, default=False
        False fits one transformer on the rows of all training tasks. True fits a
        fresh one on each task, which uses all rows of the task but no targets.

    Attributes
    ----------
    transformer_ : transformer
        Fitted on the rows of all training tasks. Not there with ``refit=True``.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skmeta import HierarchicalRegressor, PerTask
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(30, 10, random_state=0)
    >>> model = make_pipeline(PerTask(StandardScaler()), HierarchicalRegressor())
    >>> model.fit(tasks[:20]).score(tasks[20:]) > 0.5
    True
    """

    def __init__(self, transformer, *, refit=False):
        self.transformer = transformer
        self.refit = refit

    def fit(self, X, y=None):
        """Fit the transformer on the rows of all tasks.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks, or rows.
        y : array-like of shape (n_samples,), default=None
            Targets of rows; None for a list of tasks.

        Returns
        -------
        self : object
            Fitted lift.
        """
        if not self.refit:
            rows, targets = X, y
            if is_task_list(X):
                rows = stack_rows([task[0] for task in X])
                targets = np.concatenate([np.asarray(task[1]) for task in X])
            self.transformer_ = clone(self.transformer).fit(rows, targets)
        self._is_fitted = True
        return self

    def transform(self, X):
        """Transform every task, or rows.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks, or rows of one task.

        Returns
        -------
        X : list of Task, or array-like
            As it came in, with transformed rows and the same targets.
        """
        check_is_fitted(self)
        if is_task_list(X):
            return [Task(self._rows(rows), y) for rows, y in X]
        return self._rows(X)

    def _rows(self, X):
        if self.refit:
            return clone(self.transformer).fit_transform(X)
        return self.transformer_.transform(X)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_is_fitted")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def stack_rows(frames):
    """Rows of all tasks, as frames where they are frames."""
    if hasattr(frames[0], "columns"):
        import narwhals.stable.v1 as nw

        native = [nw.from_native(frame, eager_only=True) for frame in frames]
        return nw.concat(native, how="vertical").to_native()
    return np.concatenate([np.asarray(frame) for frame in frames])
