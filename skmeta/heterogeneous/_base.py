"""What estimators add that take tasks with columns of their own."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..base import NeuralMetaEstimator
from ..modules import MLP
from ..tasks import is_task_list
from ..tasks._columns import (
    hold_to_tasks,
    read_wide_rows,
    read_wide_tasks,
    widened,
)
from ..tasks._door import _n_rows, split_group_column
from ..tasks._table import append_rows, join_tables

NO_COLUMN = np.zeros(0, dtype=np.intp)


class TableMetaEstimator(NeuralMetaEstimator):
    """A meta-learner of tables whose columns differ from task to task.

    One table with exactly the columns of fit must have them in that order, as
    everywhere in scikit-learn; any other, and each frame of a list, is matched by name.
    Further rows of a known task need the columns of that task, and may bring new ones;
    `adapt` starts a task afresh. NaN is a missing value.
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "use_names": ["boolean"],
    }

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def _n_names(self):
        """Columns that mean the same in all tasks, and so can be learned one by one."""
        return self._known_columns.n_shared if self.use_names else 0

    # ------------------------------------------------------------------- what comes in
    def _read(self, X, y, groups, *, reset):
        known = None if reset else self._known_columns
        table, self._known_columns = self._read_wide(X, y, groups, known)
        return table

    def _read_wide(self, X, y, groups, known):
        return read_wide_tasks(
            self,
            X,
            y,
            groups,
            known=known,
            group_column=self.group_column,
            classifier=self._is_classifier,
        )

    def _read_scored(self, X, y, groups):
        self._hold(X, groups, lambda task: self._own(task))
        return self._read_wide(X, y, groups, self._known_columns)[0]

    def _partial_fit(self, X, y, groups, **options):
        if hasattr(self, "states_"):  # long format has the columns of fit, all of them
            everything = np.arange(self.n_features_in_)
            self._hold(X, groups, lambda task: everything)
        return super()._partial_fit(X, y, groups, **options)

    def _adapt(self, X, y, groups, sample_weight=None, afresh=True):
        check_is_fitted(self)
        if not afresh:

            def own(task):
                return self._own(task) if task in self.states_ else NO_COLUMN

            self._hold(X, groups, own)
            for t, (rows, _) in enumerate(X if is_task_list(X) else ()):
                ids = np.full(_n_rows(rows), t)
                hold_to_tasks(self, rows, ids, known=self._known_columns, own=own)
        return super()._adapt(X, y, groups, sample_weight, afresh)

    def _hold(self, X, groups, own):
        """Refuse rows of known tasks without their columns; those of a list are new."""
        if is_task_list(X) or hasattr(X, "__next__"):
            return
        rows, ids = split_group_column(X, groups, self.group_column)
        hold_to_tasks(self, rows, ids, known=self._known_columns, own=own)

    def _read_queries(self, X, groups):
        return read_wide_rows(
            self,
            X,
            groups,
            known=self._known_columns,
            own=self._own,
            group_column=self.group_column,
        )

    def _own(self, task):
        """Places of the columns of which the support of a task has values."""
        if task is None and task not in self.states_ and len(self.states_) == 1:
            task = next(iter(self.states_))
        if task not in self.states_:
            return NO_COLUMN
        block, place = self.states_[task]
        return np.flatnonzero(np.isfinite(block.support.take([place]).X).any(axis=0))

    @staticmethod
    def _combine(first, second):
        return append_rows(*widened([first, second]))

    @staticmethod
    def _join(summaries):
        return join_tables(widened(summaries))

    # ----------------------------------------------------------------------- backbones
    @staticmethod
    def _default_backbone(feature_shape):
        return MLP, {"hidden": (32,)}

    def _as_input(self, X):
        """Cells as the backbone gets them, which is all that it sees of a row."""
        return X.new_zeros((2, self._cell_width)).float()
