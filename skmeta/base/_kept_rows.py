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

    def _training_rows(self, rows, resume):
        """Rows of all training tasks: what `rows` brings, and what was known before."""
        if resume:
            rows = self._with_training(rows)
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
