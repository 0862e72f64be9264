"""What all baselines have in common: they keep the rows of their tasks."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ..base._checks import warn_single_task
from ..tasks._table import append_rows, join_tables, table_from_codes

ESTIMATOR_CONSTRAINT = [HasMethods(["fit", "predict"]), None]


class BaselineMixin:
    """The summary of a task is its rows, flattened, with classes as codes."""

    _parameter_constraints: dict = {
        "n_shots": [Interval(Integral, 0, None, closed="left")],
        "support": [StrOptions({"random", "first"})],
        "group_column": [str, Integral, None],
    }

    def _learn_classes(self, table, classes=None):
        """Classes and what they mean, from the first training tasks."""
        self._decide_label_space(table, classes)
        shared = self.label_space_ == "shared"
        if len(self.classes_ if shared else table.labels) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in the "
                f"data, but the data contains only one class: {table.y[0]!r}."
            )

    def _training_rows(self, rows, resume):
        """Rows of all training tasks: what `rows` brings, and what was known before."""
        if resume:
            known = self._extended(rows, self.states_).support
            new = set(known.ids)
            kept = [i for i, task in enumerate(self._training.ids) if task not in new]
            rows = self._join([self._training.take(kept), known])
        else:
            warn_single_task(rows)
        self._training = rows
        return rows

    def _summarize(self, table):
        return self._flattened(self._encode(table))

    def _flattened(self, table):
        return replace(table, X=self._flat(table))

    @staticmethod
    def _flat(table):
        return table.X.reshape(len(table.X), -1).astype(np.float64, copy=False)

    _combine = staticmethod(append_rows)
    _join = staticmethod(join_tables)

    def _prior_summary(self, ids):
        nothing = self._training.X[:0], self._training.y[:0]
        return table_from_codes(*nothing, np.zeros(0, dtype=np.intp), ids)


def boosting_regressor():
    """Default of the pooled regressors; its gradients are float32, so it is scaled."""
    return TransformedTargetRegressor(
        HistGradientBoostingRegressor(random_state=0),
        transformer=StandardScaler(),
        check_inverse=False,
    )


def fit_clone(estimator, default, X, y):
    """A fitted clone of the user's estimator, or of the default one."""
    return clone(default if estimator is None else estimator).fit(X, y)


def sum_by_task(values, codes, n_tasks):
    """Sums over the rows of each task: (n_tasks, *columns)."""
    sums = np.zeros((n_tasks, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums
