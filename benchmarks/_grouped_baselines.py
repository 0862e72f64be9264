"""Baselines of the grouped tables: functions of (train, support, query)."""

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta.hierarchical._out_of_fold import out_of_fold_predictions

PENALTIES = np.logspace(-2, 5, 15)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in long format; hashed by identity, so that fits can be cached."""

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray

    def __getitem__(self, index):
        return Rows(self.X[index], self.y[index], self.groups[index])


def join(a, b):
    """Rows of both."""
    fields = ((a.X, b.X), (a.y, b.y), (a.groups, b.groups))
    return Rows(*map(np.concatenate, fields))


def ridge():
    """Pooled ridge, its penalty by leave-one-out."""
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES))


def boosting():
    """Pooled boosting with scikit-learn's defaults."""
    return HistGradientBoostingRegressor(random_state=0)


@lru_cache(maxsize=8)
def _fit(make, train):
    return make().fit(train.X, train.y)


def pooled(train, support, query, make):
    """One model of all training rows; it never sees the support rows."""
    return _fit(make, train).predict(query.X)


def group_mean(train, support, query):
    """Mean of the support rows of the group, else of all training rows."""
    means = pd.Series(support.y).groupby(support.groups).mean()
    return means.reindex(query.groups).fillna(train.y.mean()).to_numpy()


def group_ridge(train, support, query):
    """Ridge on the support rows of the group alone, else the pooled one."""
    scaler = _fit(ridge, train)[0]
    prediction = pooled(train, support, query, ridge)
    for name in np.unique(support.groups):
        own, asked = support.groups == name, query.groups == name
        model = Ridge(1.0).fit(scaler.transform(support.X[own]), support.y[own])
        prediction[asked] = model.predict(scaler.transform(query.X[asked]))
    return prediction


@lru_cache(maxsize=2)
def _offset_shrinkage(train):
    """Noise over between-group variance of out-of-fold boosting residuals."""
    feature, _ = out_of_fold_predictions(boosting(), train.X, train.y, train.groups)
    residual = pd.Series(train.y - feature[:, 0]).groupby(train.groups)
    size, mean, variance = residual.size(), residual.mean(), residual.var()
    within = (variance * (size - 1)).sum() / (size - 1).sum()
    between = mean.var() - within * (1 / size).mean()
    return within / max(between, 1e-6 * within)


def boosting_offset(train, support, query):
    """Boosting plus the shrunk mean residual of the support rows."""
    prediction = pooled(train, support, query, boosting)
    if not len(support.y):
        return prediction
    residual = support.y - pooled(train, support, support, boosting)
    sums = pd.Series(residual).groupby(support.groups).agg(["sum", "size"])
    offset = sums["sum"] / (sums["size"] + _offset_shrinkage(train))
    return prediction + offset.reindex(query.groups).fillna(0).to_numpy()


def mixed_model(train, support, query, slopes=()):
    """Statsmodels' mixed model (REML), refitted with the support rows."""
    rows = join(train, support)
    scaler = StandardScaler().fit(train.X)
    # Exactly collinear columns make the Hessian singular; a QR finds them.
    Z = scaler.transform(rows.X)
    keep = independent_columns(Z)

    def design(X):
        return np.column_stack([np.ones(len(X)), scaler.transform(X)[:, keep]])

    random = [0, *(1 + keep.index(j) for j in slopes)]
    center, scale = train.y.mean(), train.y.std()
    model = sm.MixedLM(
        (rows.y - center) / scale,
        design(rows.X),
        groups=rows.groups,
        exog_re=design(rows.X)[:, random],
    )
    with warnings.catch_warnings():
        # It warns of every optimiser that it gives up; whether one succeeded is
        # checked below.
        warnings.simplefilter("ignore")
        result = model.fit(method=["bfgs", "lbfgs", "powell"])
    if not result.converged:
        raise ValueError("The mixed model did not converge.")
    prediction = design(query.X) @ result.fe_params
    effects = result.random_effects
    for name in np.unique(query.groups):
        if name in effects:
            asked = query.groups == name
            deviation = np.asarray(effects[name])
            prediction[asked] += design(query.X[asked])[:, random] @ deviation
    return center + scale * prediction


def independent_columns(Z):
    """Columns that are not linear combinations of earlier ones."""
    keep = []
    for j in range(Z.shape[1]):
        trial = Z[:, [*keep, j]]
        if np.linalg.matrix_rank(trial, tol=1e-8 * np.linalg.norm(trial)) > len(keep):
            keep.append(j)
    return keep


def forest():
    """Random forest behind an imputer."""
    model = RandomForestClassifier(200, random_state=0)
    return make_pipeline(SimpleImputer(), model)


def logistic():
    """Pooled logistic regression behind an imputer."""
    model = LogisticRegression(max_iter=2000)
    return make_pipeline(SimpleImputer(), StandardScaler(), model)


def refitted(train, support, query, make):
    """Pooled model refitted with the support rows."""
    rows = join(train, support) if len(support.y) else train
    return make().fit(rows.X, rows.y).predict(query.X)
