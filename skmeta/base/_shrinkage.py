"""Means of tasks, shrunk as far as their rows are few: empirical Bayes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..tasks._table import sum_by_code


@dataclass(frozen=True)
class Shrinkage:
    """Two variances, which say how far a mean of few rows is to be trusted.

    Parameters
    ----------
    center : ndarray of shape (n_columns,)
        Mean of a task of which nothing is known.
    between : float
        Variance of the true means of tasks, summed over columns.
    within : float
        Variance of rows around the mean of their task, summed over columns.
    """

    center: np.ndarray
    between: float
    within: float

    def weight(self, counts):
        """Weight of the mean of that many rows; the rest goes to the center."""
        own = self.between * np.asarray(counts, dtype=float)
        total = own + self.within
        return np.divide(own, total, out=np.zeros_like(own), where=total > 0)

    def means(self, sums, counts):
        """Shrunken means from sums over rows: (n_tasks, n_columns)."""
        own = sums / np.maximum(counts, 1)[:, None]
        return self.center + self.weight(counts)[:, None] * (own - self.center)


def fit_shrinkage(values, codes, n_tasks, center=None):
    """Variance components by the method of moments (unbalanced one-way layout).

    Where they cannot be told apart (one task, or one row in every task) all variance
    is within tasks. The default center is the mean of the means of tasks.
    """
    counts = np.bincount(codes, minlength=n_tasks)
    n_rows = len(values)
    means = sum_by_code(values, codes, n_tasks) / counts[:, None]
    grand = values.mean(axis=0)
    center = means.mean(axis=0) if center is None else center
    if n_tasks == 1 or n_rows == n_tasks:
        return Shrinkage(center, 0.0, float(values.var(axis=0).sum()))
    within = ((values - means[codes]) ** 2).sum() / (n_rows - n_tasks)
    spread = (counts[:, None] * (means - grand) ** 2).sum() / (n_tasks - 1)
    size = (n_rows - (counts**2).sum() / n_rows) / (n_tasks - 1)
    return Shrinkage(center, float(max(0.0, (spread - within) / size)), float(within))
