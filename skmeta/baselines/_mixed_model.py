"""The linear mixed model of statsmodels, with the verbs of a meta-learner."""

from __future__ import annotations

import warnings
from numbers import Integral

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..base import MetaEstimator, ProbabilisticRegressorMixin
from ..base._kept_rows import KeptRowsMixin
from ..exceptions import warn_caller
from ..tasks._table import sum_by_code

#: Tried one after the other, each with all optimisers.
_ATTEMPTS = ({"reml": True}, {"reml": False})
_OPTIMISERS = ["bfgs", "lbfgs", "powell"]
#: Of the variance of the target; a perfect fit has no noise to divide by.
_LEAST_NOISE = 1e-12


class MixedModelRegressor(ProbabilisticRegressorMixin, KeptRowsMixin, MetaEstimator):
    """Linear mixed model: effects common to all tasks, and random ones of each task.

    What statisticians use for grouped rows [1]_. Effects and variances are estimated by
    `MixedLM` of statsmodels, by restricted maximum likelihood; adapting to a new task
    is the best linear unbiased prediction of its random effects from its rows, in
    closed form and without a refit.

    Features and target are standardised inside, and features that are linear
    combinations of others are merged, as are the smallest principal components beyond
    half the number of rows. Where variances cannot be estimated (a single task, one row
    in every task), the model is least squares without random effects.

    Needs statsmodels, ``pip install skmeta[examples]``.

    Parameters
    ----------
    slopes : list of str or int, default=None
        Names or positions (without the group column) of the features that have a
        random slope besides the random intercept.
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
    coef_ : ndarray of shape (n_features,)
        Effects common to all tasks.
    intercept_ : float
        Mean intercept.
    covariance_ : ndarray of shape (1 + n_slopes, 1 + n_slopes)
        Of the random effects: the intercept where features have their mean, and slopes
        by standard deviation of the feature.
    noise_variance_ : float
        Variance of rows around the model of their task.
    states_ : TaskStates
        Rows and random effects of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    skmeta.HierarchicalRegressor : Chooses what may differ between tasks by itself.

    References
    ----------
    .. [1] Laird and Ware. "Random-effects models for longitudinal data", Biometrics
       38, 1982.

    Examples
    --------
    >>> from skmeta.baselines import MixedModelRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> mixed = MixedModelRegressor(slopes=[0]).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = mixed.adapt(X[:5], y[:5]).predict(X[5:], return_std=True)
    >>> mean.shape, std.shape
    ((15,), (15,))
    """

    _parameter_constraints: dict = {
        "slopes": ["array-like", None],
        **KeptRowsMixin._parameter_constraints,
    }

    def __init__(self, slopes=None, *, n_shots=5, support="random", group_column=None):
        self.slopes = slopes
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    def _meta_fit(self, table, *, resume):
        mixed_lm = _import_mixed_lm()
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        self._slopes = self._slope_positions(training.X.shape[1])
        self._mean, self._scale = training.X.mean(axis=0), _scale(training.X)
        y, self._y_mean, self._y_scale = _standardised(training.y)
        Z = (training.X - self._mean) / self._scale
        directions = _directions(Z, len(Z) // 2)
        design = np.column_stack([np.ones(len(Z)), Z @ directions])
        beta, self._covariance, noise = self._estimate(mixed_lm, y, design, training)
        self._noise = max(noise, _LEAST_NOISE)
        self._beta = np.append(beta[0], directions @ beta[1:])
        self.coef_ = self._y_scale * self._beta[1:] / self._scale
        constant = self._y_mean + self._y_scale * self._beta[0]
        self.intercept_ = float(constant - self._mean @ self.coef_)
        self.covariance_ = self._y_scale**2 * self._covariance
        self.noise_variance_ = float(self._y_scale**2 * self._noise)
        return rows

    def _slope_positions(self, n_features):
        """Positions of the features that have a random slope."""
        names = list(getattr(self, "feature_names_in_", ()))
        positions = []
        for slope in () if self.slopes is None else self.slopes:
            known = (
                slope in names
                if isinstance(slope, str)
                else (isinstance(slope, Integral) and -n_features <= slope < n_features)
            )
            if not known:
                raise ValueError(
                    f"slopes contains {slope!r}, which is neither one of the names "
                    f"{names[:10]} nor the position of one of {n_features} features."
                )
            position = names.index(slope) if isinstance(slope, str) else slope
            positions.append(int(position) % n_features)
        return positions

    def _estimate(self, mixed_lm, y, design, training):
        """Common effects, covariance of the random ones, and noise."""
        random = self._random_design(training.X)
        if 1 < training.n_tasks < len(y) and y.any():
            # A feature that does not vary has no slope: its row and column are 0.
            varying = np.flatnonzero(random.any(axis=0))
            model = mixed_lm(y, design, training.codes, exog_re=random[:, varying])
            fitted = _fit_mixed(model)
            if fitted is not None:
                covariance = np.zeros((random.shape[1],) * 2)
                covariance[np.ix_(varying, varying)] = fitted[1]
                return fitted[0], covariance, fitted[2]
            warn_caller(
                "The mixed model did not converge; predictions are those of least "
                "squares, without random effects. Leave out slopes.",
                ConvergenceWarning,
            )
        beta = np.linalg.lstsq(design, y, rcond=None)[0]
        noise = ((y - design @ beta) ** 2).sum() / max(1, len(y) - len(beta))
        return beta, np.zeros((random.shape[1],) * 2), noise

    def _random_design(self, X):
        """Columns that have random effects: a constant and the standardised slopes."""
        Z = (X[:, self._slopes] - self._mean[self._slopes]) / self._scale[self._slopes]
        return np.column_stack([np.ones(len(X)), Z])

    def _solve(self, table):
        Z = self._random_design(table.X)
        residual = (table.y - self._y_mean) / self._y_scale - self._common(table.X)
        gram = sum_by_code(Z[:, :, None] * Z[:, None], table.codes, table.n_tasks)
        cross = sum_by_code(Z * residual[:, None], table.codes, table.n_tasks)
        # Also right where the covariance is singular: (noise + D Z'Z)^-1 D Z'r.
        left = self._noise * np.eye(Z.shape[1]) + self._covariance @ gram
        right = self._covariance @ cross[:, :, None]
        prior = self._noise * np.broadcast_to(self._covariance, gram.shape)
        return {
            "effect": np.linalg.solve(left, right)[:, :, 0],
            "covariance": np.linalg.solve(left, prior),
        }

    def _common(self, X):
        """Common effects, in units of the standardised target."""
        return self._beta[0] + (X - self._mean) / self._scale @ self._beta[1:]

    def _forward(self, state, table, return_std=False):
        X, codes = self._flat(table), table.codes
        Z = self._random_design(X)
        mean = self._common(X) + (Z * state["effect"][codes]).sum(axis=1)
        mean = self._y_mean + self._y_scale * mean
        if not return_std:
            return mean
        variance = np.einsum("ij,ijk,ik->i", Z, state["covariance"][codes], Z)
        return mean, self._y_scale * np.sqrt(np.maximum(variance, 0) + self._noise)


def _import_mixed_lm():
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM
    except ImportError as error:
        raise ImportError(
            "MixedModelRegressor needs statsmodels. Install it with "
            "`pip install skmeta[examples]`."
        ) from error
    return MixedLM


def _scale(values):
    """Standard deviation; infinite, so that 0 remains, where it is only rounding."""
    scale = values.std(axis=0)
    rounding = 1e-12 * np.abs(values).max(axis=0, initial=0)
    return np.where(scale > rounding, scale, np.inf)


def _standardised(y):
    """The target, its mean and its scale, which may be beyond what can be squared."""
    mean = y.mean()
    largest = np.abs(y - mean).max()
    if largest <= 1e-12 * np.abs(y).max():
        return np.zeros(len(y)), mean, 1.0
    scale = largest * ((y - mean) / largest).std()
    return (y - mean) / scale, mean, scale


def _directions(Z, limit):
    """Principal directions with unit variance, without those that do not vary."""
    _, size, rows = np.linalg.svd(Z, full_matrices=False)
    kept = np.flatnonzero(size > 1e-8 * max(size.max(initial=0), 1e-8))[:limit]
    return rows[kept].T * (np.sqrt(len(Z)) / size[kept])


def _fit_mixed(model):
    """Estimates of the first attempt that gives finite ones, None if none does."""
    for options in _ATTEMPTS:
        try:
            with warnings.catch_warnings():
                # It warns of each optimiser that it gives up, and of variances of 0.
                warnings.simplefilter("ignore")
                result = model.fit(method=_OPTIMISERS, **options)
        except (np.linalg.LinAlgError, ValueError):
            continue
        found = [np.asarray(v) for v in (result.fe_params, result.cov_re)]
        if result.converged and all(np.isfinite(v).all() for v in found):
            return *found, float(result.scale)
    return None
