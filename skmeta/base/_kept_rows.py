"""Learners that keep the rows of their tasks as they came."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from ..tasks._table import append_rows, join_tables, table_from_codes
from ._checks import warn_single_task


class KeptRowsMixin:
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
