"""What several baselines have in common."""

from __future__ import annotations

from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import HasMethods

ESTIMATOR_CONSTRAINT = [HasMethods(["fit", "predict"]), None]


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
