"""What linear models of all training tasks say, by columns that have a name."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV

from ..base import MetaClassifierMixin, MetaRegressorMixin
from ..base._shrinkage import fit_shrinkage
from ._columns_learner import CONSTANT, FARTHEST

#: Rows that the level of all tasks counts for at the most, beside those of a task.
MOST_ROWS = 100.0


class TableRegressorMixin(MetaRegressorMixin):
    """Regressors on such tables, which start from slopes that tasks have in common."""

    def _begin(self, net, table):
        named, rest = common_slopes(table, self._n_names)
        strength = 1.0
        if table.n_tasks > 1:
            shrinkage = fit_shrinkage(rest[:, None], table.codes, table.n_tasks)
            at_least = max(shrinkage.within / MOST_ROWS, 1e-12)
            strength = shrinkage.within / max(shrinkage.between, at_least)
        scale = net.module_.learner.target_scale
        scale.named.load_state_dict(named)
        variance = max(np.square(rest).mean(), 1e-4)
        log_strength = np.log(max(strength, 1 / MOST_ROWS))
        with torch.no_grad():
            scale.variance.fill_(variance)
            scale.log_strength.fill_(log_strength)


class TableClassifierMixin(MetaClassifierMixin):
    """Classifiers on such tables: where labels are shared, they start likewise."""

    def _begin(self, net, table):
        if self.label_space_ == "shared":
            weight = "balanced" if self.class_balanced else None
            named = common_logits(table, self._n_names, len(self.classes_), weight)
            net.module_.learner.named.load_state_dict(named)


def common_slopes(table, n_names):
    """Ridge regression of the rows of all tasks.

    Parameters
    ----------
    table : TaskTable
        Wide table with targets; NaN where there is no value.
    n_names : int
        Columns to take, the first ones. One that a row lacks counts as average.

    Returns
    -------
    named : dict of str to Tensor
        What `NamedSlopes` keeps.
    rest : ndarray of shape (n_rows,)
        What is left of the targets.
    """
    cells, *units = _standardised(table.X[:, :n_names])
    if not n_names:
        return _named(*units, np.zeros((0, 1)), np.zeros(1)), table.y
    model = RidgeCV(np.logspace(-2, 5, 15)).fit(cells, table.y)
    slope, constant = model.coef_[:, None], np.array([model.intercept_])
    return _named(*units, slope, constant), table.y - model.predict(cells)


def common_logits(table, n_names, n_classes, class_weight):
    """Logistic regression of the rows of all tasks, as `common_slopes`.

    Parameters
    ----------
    table : TaskTable
        Wide table with classes 0 to ``n_classes - 1``, some of which may have no row.
    n_names : int
        Columns to take.
    n_classes : int
        Number of classes.
    class_weight : "balanced" or None
        Whether all classes weigh the same.

    Returns
    -------
    named : dict of str to Tensor
        What `NamedSlopes` keeps.
    """
    cells, *units = _standardised(table.X[:, :n_names])
    slope, constant = np.zeros((n_names, n_classes)), np.zeros(n_classes)
    seen = np.unique(table.y)
    if n_names and len(seen) > 1:
        model = LogisticRegression(class_weight=class_weight, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(cells, table.y)
        coef, intercept = model.coef_, model.intercept_
        if len(seen) == 2:
            coef, intercept = (
                np.concatenate([-part, part]) / 2 for part in (coef, intercept)
            )
        slope[:, seen] = coef.T
        constant[:] = -np.log(1 + len(cells))  # a class without any row
        constant[seen] = intercept
    return _named(*units, slope, constant)


def _named(center, scale, slope, constant):
    parts = {"center": center, "scale": scale, "slope": slope, "constant": constant}
    return {name: torch.from_numpy(part) for name, part in parts.items()}


def _standardised(X):
    """Cells, zero where there is no value, and center and scale of columns."""
    X = X.astype(np.float64)
    known = np.isfinite(X)
    count = known.sum(axis=0).clip(1)
    center = np.where(known, X, 0).sum(axis=0) / count
    moved = np.where(known, X - center, 0)
    scale = np.sqrt(np.square(moved).sum(axis=0) / count)
    scale[scale <= CONSTANT * abs(center)] = 1.0
    return (moved / scale).clip(-FARTHEST, FARTHEST), center, scale
