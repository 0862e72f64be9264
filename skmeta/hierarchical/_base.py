"""What the hierarchical regressor and classifier have in common."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from threadpoolctl import threadpool_limits

from ..base._checks import warn_single_task
from ._design import fit_design
from ._out_of_fold import out_of_fold_predictions, pooled_features
from ._prior import COVARIANCES


class HierarchicalMixin:
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
        self._design, features = fit_design(X, table.y, table.codes, classes=indices)
        return features

    def _design_rows(self, table, classes=None):
        """Design rows of rows that the pooled model has not been fitted on."""
        X = _flat(table.X)
        if self.base_estimator_ is not None:
            pooled = pooled_features(self.base_estimator_, X, classes)
            X = np.hstack([X, pooled])
        return self._design.features(X)


def _flat(X):
    return X.reshape(len(X), -1).astype(np.float64, copy=False)
