"""Weights of support rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.utils.validation import _check_sample_weight


def weighted(table, sample_weight):
    """The table with a weight for each row; rows of weight 0 are left out."""
    weight = _check_sample_weight(
        sample_weight, table.X, dtype=np.float64, ensure_non_negative=True
    )[table.order]
    kept = np.flatnonzero(weight > 0)
    table = replace(table, weight=weight).take_rows(kept)
    if len(kept) < len(weight) and not table.counts.all():
        task = table.ids[int(np.argmin(table.counts))]
        which = "" if task is None else f" of task {task!r}"
        raise ValueError(f"sample_weight is 0 for every row{which}.")
    return table


class WeightedSupportMixin:
    """Learners that adapt exactly to rows that count more or less than once.

    Stands left of `MetaEstimator` among the bases.
    """

    def adapt(self, X, y=None, groups=None, sample_weight=None):
        """Specialise to new tasks, afresh from what `fit` has learned.

        What `fit` learned is not changed, and other tasks keep their states.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Support rows of one task, or of many.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it (and without `group_column`) the rows are
            one task, which `predict` then uses for rows without an id.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts, those of a list one after the other: 2 is the
            row twice, 0 as if it were not there, 0.5 half of its evidence.

        Returns
        -------
        self : object
            The estimator, adapted.
        """
        return self._adapt(X, y, groups, sample_weight)

    def partial_adapt(self, X, y=None, groups=None, sample_weight=None):
        """Go on adapting tasks with more rows; unknown tasks are adapted afresh.

        ``adapt(A)`` then ``partial_adapt(B)`` is ``adapt`` on the rows of both.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Further support rows.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each of these rows counts.

        Returns
        -------
        self : object
            The estimator, adapted.
        """
        return self._adapt(X, y, groups, sample_weight, afresh=False)
