"""What the hierarchical regressor and classifier have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from threadpoolctl import threadpool_limits

from ..base._checks import warn_single_task
from ..base._weights import WeightedSupportMixin
from ._design import fit_design
from ._out_of_fold import out_of_fold_predictions, pooled_features
from ._prior import COVARIANCES


class HierarchicalMixin(WeightedSupportMixin):
    """From rows to design rows, with a pooled model's prediction among the columns."""

    _parameter_constraints: dict = {
        "base_estimator": [HasMethods(["fit", "predict"]), None],
        "covariance": [StrOptions(set(COVARIANCES))],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "n_shots": [Interval(Integral, 0, None, closed="left")],
        "support": [StrOptions({"random", "first"})],
        "group_column": [str, Integral, None],
    }

    def fit(self, X, y=None, groups=None):
        # Many small matrices: threads of BLAS only get in each other's way.
        with threadpool_limits(1, user_api="blas"):
            return super().fit(X, y, groups)

    def _learn_design(self, table, classes=None):
        """Design rows of training rows, and everything that new rows need."""
        warn_single_task(table)
        X, self.base_estimator_ = _flat(table.X), None
        self._n_base = 0
        if self.base_estimator is not None:
            pooled, self.base_estimator_ = out_of_fold_predictions(
                self.base_estimator,
                X,
                table.y if classes is None else classes[table.y],
                table.codes,
                self.cv,
                is_classifier=classes is not None,
                classes=classes,
            )
            X = np.hstack([X, pooled])
            self._n_base = pooled.shape[1]
        indices = None if classes is None else np.arange(len(classes))
        self._design, features = fit_design(
            X, table.y, table.codes, classes=indices, n_base=self._n_base
        )
        return features

    def _pooled_center(self):
        """Weights that repeat the pooled model; None, for zero, where there is none."""
        return self._design.pooled_weights() if self._n_base else None

    def _design_rows(self, table, classes=None):
        """Design rows of rows that the pooled model has not been fitted on."""
        X = _flat(table.X)
        if self.base_estimator_ is not None:
            pooled = pooled_features(self.base_estimator_, X, classes)
            X = np.hstack([X, pooled])
        return self._design.features(X)

    def _with_known(self, summary):
        """Support of all training tasks, those of the summary replaced or added."""
        known = self._extended(summary, self.states_).support
        new = set(known.ids)
        kept = [i for i, task in enumerate(self._training.ids) if task not in new]
        joined = self._join([self._training.take(kept), known])
        return replace(joined, training=np.ones(len(joined.ids), dtype=bool))

    def _combine(self, first, second):
        rows = self._combine_rows(first.rows, second.rows)
        return TaskSupport(first.ids, rows, np.zeros(len(first.ids), dtype=bool))

    def _join(self, supports):
        return TaskSupport(
            [task for support in supports for task in support.ids],
            self._join_rows([support.rows for support in supports]),
            np.concatenate([support.training for support in supports]),
        )

    def _solve(self, support):
        state = self._posterior(support)
        training = np.flatnonzero(support.training)
        if len(training):
            exact = self._training_posterior(support.take(training))
            for name, values in exact.items():
                state[name][training] = values
        return state


@dataclass(frozen=True)
class TaskSupport:
    """Design rows of tasks, or their statistics.

    Parameters
    ----------
    ids : list
        Task ids.
    rows : Statistics or TaskTable
        Of the tasks in the order of the ids.
    training : bool ndarray of shape (n_tasks,)
        Whether the prior was learned from exactly these rows, which must then not be
        counted a second time.
    """

    ids: list
    rows: Any
    training: np.ndarray

    def take(self, tasks):
        """The tasks at the given positions."""
        tasks = np.asarray(tasks, dtype=np.intp)
        ids = [self.ids[t] for t in tasks]
        return TaskSupport(ids, self.rows.take(tasks), self.training[tasks])


def _flat(X):
    return X.reshape(len(X), -1).astype(np.float64, copy=False)
