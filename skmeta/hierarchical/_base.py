"""What the hierarchical regressor and classifier have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from threadpoolctl import threadpool_limits

from ..base._checks import warn_single_task
from ..base._weights import WeightedSupportMixin
from ..tasks._table import table_from_codes
from ._design import fit_design
from ._neighbors import MAX_TASKS, latent_state, learn_neighborhoods
from ._out_of_fold import out_of_fold_predictions, pooled_features
from ._prior import COVARIANCES
from ._task_features import check_constant, refuse_changes, task_positions


class HierarchicalMixin(WeightedSupportMixin):
    """From rows to design rows, with a pooled model's prediction among the columns."""

    _parameter_constraints: dict = {
        "base_estimator": [HasMethods(["fit", "predict"]), None],
        "covariance": [StrOptions(set(COVARIANCES))],
        "task_features": ["array-like", None],
        "neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "recency": [Interval(Real, 0, None, closed="neither"), None],
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
        self._task_positions = task_positions(
            self.task_features, self._names, X.shape[1]
        )
        # What a support row counts less for each row after it.
        self._decay = 1.0 if self.recency is None else 0.5 ** (1 / self.recency)
        arranged = self._arranged(table)
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
            arranged = np.hstack([arranged, pooled])
            self._n_base = pooled.shape[1]
        indices = None if classes is None else np.arange(len(classes))
        self._design, features = fit_design(
            arranged,
            table.y,
            table.codes,
            classes=indices,
            n_base=self._n_base,
            n_task=len(self._task_positions),
        )
        return features

    def _pooled_center(self):
        """Weights that repeat the pooled model; None, for zero, where there is none."""
        return self._design.pooled_weights() if self._n_base else None

    def _design_rows(self, table, classes=None):
        """Design rows of rows that the pooled model has not been fitted on."""
        X = self._arranged(table)
        if self.base_estimator_ is not None:
            pooled = pooled_features(self.base_estimator_, _flat(table.X), classes)
            X = np.hstack([X, pooled])
        return self._design.features(X)

    @property
    def _names(self):
        return getattr(self, "feature_names_in_", None)

    def _arranged(self, table):
        """Rows with the columns that describe the task last."""
        X = _flat(table.X)
        if not len(self._task_positions):
            return X
        check_constant(replace(table, X=X), self._task_positions, self._names)
        others = np.delete(np.arange(X.shape[1]), self._task_positions)
        return X[:, np.r_[others, self._task_positions]]

    def _supports(self, table, rows, training, recent=None):
        """Supports of the tasks of a table of design rows, of which `rows` is kept."""
        n_tasks, columns = table.n_tasks, self._design.task_columns
        about = np.full((n_tasks, columns.stop - columns.start), np.nan)
        seen = table.counts > 0
        about[seen] = table.X[table.offsets[:-1][seen], columns]
        training = np.full(n_tasks, training)
        return TaskSupport(table.ids, rows, training, about, recent)

    def _with_known(self, summary):
        """Support of all training tasks, those of the summary replaced or added."""
        joined = self._with_training(summary)
        return replace(joined, training=np.ones(len(joined.ids), dtype=bool))

    def _no_rows(self, ids):
        """Table of tasks of which no row is known."""
        none = np.zeros(0, dtype=np.intp)
        X = np.zeros((0, self._design.n_features))
        return table_from_codes(X, none, none, ids)

    def _combine(self, first, second):
        refuse_changes(
            first.about, second.about, first, self._task_positions, self._names
        )
        rows, recent = self._combine_rows(first.rows, second.rows), first.recent
        if recent is not None:
            recent = self._combine_rows(recent, second.recent)
        new = np.zeros(len(first.ids), dtype=bool)
        return TaskSupport(first.ids, rows, new, first.about, recent)

    def _join(self, supports):
        recent = None
        if supports[0].recent is not None:
            recent = self._join_rows([support.recent for support in supports])
        return TaskSupport(
            [task for support in supports for task in support.ids],
            self._join_rows([support.rows for support in supports]),
            np.concatenate([support.training for support in supports]),
            np.concatenate([support.about for support in supports]),
            recent,
        )

    def _learn_neighborhoods(self):
        """What the training tasks say of new ones beyond the learned prior."""
        if self.neighbors is None:
            return None
        n_tasks = len(self._training.ids)
        chosen = np.random.default_rng(0).permutation(n_tasks)[:MAX_TASKS]
        tasks, prior = self._training.take(chosen), self.prior_
        known, precision = latent_state(prior, self._training_posterior(tasks))
        as_new = latent_state(prior, self._posterior(tasks))
        cov = np.linalg.inv(precision)
        return learn_neighborhoods(known, cov, *as_new, self.neighbors)

    def _near(self, state):
        """States of new tasks that may be like some training tasks."""
        posterior = self.neighborhoods_.posterior(*latent_state(self.prior_, state))
        latent, cov = posterior
        mean = self.prior_.mean + (latent @ self.prior_.factor.T).reshape(
            state["mean"].shape
        )
        root = np.linalg.inv(np.linalg.cholesky(cov)).swapaxes(-1, -2)
        chol = np.sqrt(self.prior_.row_noise) * root.reshape(state["chol"].shape)
        return {"mean": mean, "chol": chol}

    def _solve(self, support):
        state = self._posterior(support)
        if self.neighborhoods_ is not None:
            state = self._near(state)
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
    about : ndarray of shape (n_tasks, n_task_features), default=None
        Values of the columns that describe a task, standardised; NaN for a task
        without rows.
    recent : Statistics, default=None
        Statistics in which older rows count less, where they are to; those in `rows`
        tell what is left to be predicted after the first few.
    """

    ids: list
    rows: Any
    training: np.ndarray
    about: np.ndarray | None = None
    recent: Any = None

    def take(self, tasks):
        """The tasks at the given positions."""
        tasks = np.asarray(tasks, dtype=np.intp)
        ids = [self.ids[t] for t in tasks]
        rows = self.rows.take(tasks)
        about = None if self.about is None else self.about[tasks]
        recent = None if self.recent is None else self.recent.take(tasks)
        return TaskSupport(ids, rows, self.training[tasks], about, recent)


def _flat(X):
    return X.reshape(len(X), -1).astype(np.float64, copy=False)
