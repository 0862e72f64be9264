"""Tasks as the user gave them, cut by task and by row."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from ..adapted import unwrap
from ..base import TaskStates
from ..tasks import is_task_list, split_group_column
from ..tasks._door import _as_labels, _factorize, _n_rows, _refuse_other_collections
from ..tasks._lift import stack_rows


@dataclass(frozen=True)
class TaskRows:
    """Rows of tasks in the form in which an estimator was given them.

    Parameters
    ----------
    X : list of (X, y) tuples, or array-like of shape (n_rows, ...)
        Tasks, or rows in any order.
    y : ndarray of shape (n_rows,)
        Targets, those of a list one task after the other.
    codes : ndarray of shape (n_rows,)
        Position of the task of each row.
    ids : list
        Task ids.
    """

    X: Any
    y: np.ndarray
    codes: np.ndarray
    ids: list

    @property
    def n_tasks(self):
        return len(self.ids)

    @property
    def listed(self):
        return is_task_list(self.X)

    def positions(self, tasks):
        """Rows of the given tasks, in the order in which `take` has them."""
        number = self._number(tasks)[self.codes]
        rows = np.flatnonzero(number >= 0)
        if self.listed:
            rows = rows[np.argsort(number[rows], kind="stable")]
        return rows

    def take(self, tasks):
        """The tasks at the given positions, in that order."""
        rows = self.positions(tasks)
        if self.listed:
            X = [self.X[t] for t in tasks]
        else:
            X = _safe_indexing(self.X, rows)
        ids = [self.ids[t] for t in tasks]
        return TaskRows(X, self.y[rows], self._number(tasks)[self.codes[rows]], ids)

    def _number(self, tasks):
        number = np.full(self.n_tasks, -1)
        number[tasks] = np.arange(len(tasks))
        return number

    def fit(self, estimator, labels=None):
        """A clone of the estimator, fitted on these tasks.

        Parameters
        ----------
        estimator : meta-learner, or Pipeline or search that ends in one
            Not changed.
        labels : array-like, default=None
            Of all tasks: classes that a classifier must know even where these tasks
            lack them.

        Returns
        -------
        estimator : fitted estimator
        """
        fitted = self._fit(clone(estimator))
        return fitted if labels is None else self._with_classes(fitted, labels)

    def _with_classes(self, fitted, labels):
        """Fit the last step anew where it lacks a class, this time knowing of it."""
        steps, meta = unwrap(fitted)
        if not is_classifier(meta) or meta.label_space_ == "per_task":
            return fitted
        classes = np.unique(labels)
        if np.isin(classes, meta.classes_).all():
            return fitted
        rows = HeldOut(fitted, self).rows
        again = (
            clone(meta)
            .set_params(group_column=None)
            .partial_fit(
                rows.X, rows.y, groups=np.array(rows.ids)[rows.codes], classes=classes
            )
        )
        again.set_params(group_column=meta.group_column)
        return make_pipeline(*steps, again) if steps else again

    def _fit(self, estimator):
        if self.listed:
            return estimator.fit(self.X)
        if unwrap(estimator)[1].group_column is not None:
            return estimator.fit(self.X, self.y)
        with config_context(enable_metadata_routing=True):
            return estimator.fit(self.X, self.y, groups=np.array(self.ids)[self.codes])


def read_task_rows(estimator, X, y=None, groups=None) -> TaskRows:
    """Tasks in any of the forms that the estimator takes.

    Parameters
    ----------
    estimator : meta-learner, or Pipeline or search that ends in one
        Whose `group_column` says where task ids are.
    X : list of (X, y) tuples, or array-like of shape (n_rows, ...)
        Tasks, or rows.
    y : array-like of shape (n_rows,), default=None
        Targets; None for a list.
    groups : array-like of shape (n_rows,), default=None
        Task id of each row.

    Returns
    -------
    TaskRows
        Tasks by position.
    """
    if is_task_list(X):
        if y is not None or groups is not None:
            raise ValueError(
                "X is a list of (X, y) tasks, which carries its own targets and task "
                "ids; pass neither y nor groups."
            )
        ys = [_as_labels(task[1]).ravel() for task in X]
        codes = np.repeat(np.arange(len(X)), [len(part) for part in ys])
        return TaskRows(list(X), np.concatenate(ys), codes, list(range(len(X))))
    _refuse_other_collections(X, y)
    column = unwrap(estimator)[1].group_column
    _, found = split_group_column(X, groups, column)
    codes, ids = _factorize(found, _n_rows(X))
    if ids == [None]:
        raise ValueError(
            "These rows have no task ids, so nothing can be held out by task: pass "
            "groups=, or a list of (X, y) tuples, or name the group_column of the "
            "estimator."
        )
    if y is None:
        raise ValueError("y is None; pass the targets of the rows, or a list of tasks.")
    return TaskRows(X, _as_labels(y).ravel(), codes, ids)


class HeldOut:
    """Tasks that a fitted estimator has not seen, to be adapted to again and again.

    Parameters
    ----------
    fitted : meta-learner, or Pipeline or search that ends in one
        Fitted on other tasks.
    rows : TaskRows
        The tasks.
    """

    def __init__(self, fitted, rows: TaskRows):
        steps, meta = unwrap(fitted)
        X = rows.X
        for step in steps:
            X = step.transform(X)
        if rows.listed:
            X = stack_rows([task[0] for task in X])
        else:
            X, _ = split_group_column(X, None, meta.group_column)
        self.rows = replace(rows, X=X)
        self.meta = copy.copy(meta)
        # Ids are positions from here on, whatever the column they came from.
        self.meta.group_column = None
        self.meta.states_ = TaskStates()

    def adapted(self, support):
        """A copy of the meta-learner, adapted to the rows where `support` is true."""
        meta, rows = copy.copy(self.meta), self.rows
        index = np.flatnonzero(support)
        if len(index):
            meta.adapt(_safe_indexing(rows.X, index), rows.y[index], rows.codes[index])
        return meta

    def take(self, keep):
        """Rows, targets and task positions where `keep` is true."""
        index = np.flatnonzero(keep)
        rows = self.rows
        return _safe_indexing(rows.X, index), rows.y[index], rows.codes[index]

    def paired(self, features, targets, codes):
        """Tasks of the features of some rows with the targets of others.

        Parameters
        ----------
        features, targets : int ndarray of shape (n_new,)
            Rows.
        codes : int ndarray of shape (n_new,)
            Task of each.

        Returns
        -------
        HeldOut
            Of the same learner.
        """
        X, y = _safe_indexing(self.rows.X, features), self.rows.y[targets]
        found = copy.copy(self)
        found.rows = TaskRows(X, y, codes, list(range(codes.max() + 1)))
        return found
