"""Rows of many tasks in long format, sorted by task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np


def ranges(starts, counts):
    """Concatenation of ``arange(start, start + count)`` over all pairs."""
    starts, counts = np.asarray(starts), np.asarray(counts)
    shift = np.repeat(starts - np.cumsum(counts) + counts, counts)
    return np.arange(counts.sum()) + shift


def row_positions(segments, key=None):
    """Place of each row within its segment, in the order of a key or of the rows."""
    key = np.arange(len(segments)) if key is None else key
    order, counts = np.lexsort((key, segments)), np.bincount(segments)
    place = np.empty(len(segments), dtype=np.intp)
    place[order] = ranges(np.zeros_like(counts), counts)
    return place


def sum_by_code(values, codes, n_codes):
    """Sums over the rows of each code, such as a task: (n_codes, *columns)."""
    sums = np.zeros((n_codes, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums


def label_kind(y):
    """Type of labels, as far as it matters for comparing them."""
    kind = y.dtype.kind
    if kind in "biuf":
        return "number"
    return "string" if kind in "OUT" else kind


@dataclass(frozen=True)
class TaskTable:
    """Rows of many tasks, sorted by task.

    Parameters
    ----------
    X : ndarray of shape (n_rows, *features)
        Rows, those of one task next to each other and in the order they came in.
    y : ndarray of shape (n_rows,) or None
        Targets, or integer class codes once encoded.
    ids : list of length n_tasks
        Identity of each task; ``None`` is the one task of a table without groups.
    offsets : ndarray of shape (n_tasks + 1,)
        Rows of task ``t`` are ``offsets[t]:offsets[t + 1]``.
    order : ndarray of shape (n_rows,)
        Where each row stood in the user's array.
    listed : bool
        Whether the tasks came as a list, where an id is only a position.
    weight : ndarray of shape (n_rows,), default=None
        How often each row counts; None where every row counts once.
    """

    X: np.ndarray
    y: Any  # an ndarray or None
    ids: list
    offsets: np.ndarray
    order: np.ndarray
    listed: bool = False
    weight: Any = None  # an ndarray or None

    @property
    def n_tasks(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def codes(self) -> np.ndarray:
        """Position of the task of each row."""
        return np.repeat(np.arange(self.n_tasks), self.counts)

    @cached_property
    def labels(self) -> np.ndarray:
        """Distinct values of `y`."""
        return np.unique(self.y)

    def with_y(self, y) -> TaskTable:
        """The same rows with other targets."""
        return replace(self, y=y)

    def take(self, tasks) -> TaskTable:
        """The tasks at the given positions, in that order."""
        tasks = np.asarray(tasks, dtype=np.intp)
        if np.array_equal(tasks, np.arange(self.n_tasks)):
            return self
        counts = self.counts[tasks]
        rows = ranges(self.offsets[tasks], counts)
        return replace(
            self,
            X=self.X[rows],
            y=None if self.y is None else self.y[rows],
            ids=[self.ids[t] for t in tasks],
            offsets=np.append(0, np.cumsum(counts)),
            order=self.order[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def take_rows(self, rows) -> TaskTable:
        """The given rows (ascending positions); every task is kept, even empty."""
        rows = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            X=self.X[rows],
            y=None if self.y is None else self.y[rows],
            offsets=np.searchsorted(rows, self.offsets),
            order=self.order[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def restore(self, values):
        """Values of the stored rows in the order of the user's rows."""
        out = np.empty_like(values)
        out[self.order] = values
        return out


def table_from_codes(X, y, codes, ids) -> TaskTable:
    """Sort rows by task; rows of one task keep their order."""
    counts = np.bincount(codes, minlength=len(ids))
    offsets = np.append(0, np.cumsum(counts))
    if np.all(codes[1:] >= codes[:-1]):
        order = np.arange(len(codes))
        return TaskTable(X, y, list(ids), offsets, order)
    order = np.argsort(codes, kind="stable")
    y = None if y is None else y[order]
    return TaskTable(X[order], y, list(ids), offsets, order)


def append_rows(first: TaskTable, second: TaskTable) -> TaskTable:
    """Rows of both tables, task by task; the tasks must be the same."""
    codes = np.concatenate([first.codes, second.codes])
    X = np.concatenate([first.X, second.X])
    y = join_labels([first.y, second.y])
    table = table_from_codes(X, y, codes, first.ids)
    weight = _join_weights([first, second])
    return table if weight is None else replace(table, weight=weight[table.order])


def _join_weights(tables):
    if all(table.weight is None for table in tables):
        return None
    return np.concatenate(
        [np.ones(len(t.X)) if t.weight is None else t.weight for t in tables]
    )


def join_tables(tables) -> TaskTable:
    """Tasks of all tables, one table after the other."""
    if len(tables) == 1:
        return tables[0]
    counts = np.concatenate([t.counts for t in tables])
    n_rows = counts.sum()
    return TaskTable(
        np.concatenate([t.X for t in tables]),
        join_labels([t.y for t in tables]),
        [task for t in tables for task in t.ids],
        np.append(0, np.cumsum(counts)),
        np.arange(n_rows),
        weight=_join_weights(tables),
    )


def join_labels(ys):
    """One array of all labels, which must not be strings here and numbers there."""
    for y in ys[1:]:
        if label_kind(y) != label_kind(ys[0]):
            raise TypeError(
                f"y has dtype {y.dtype}, but labels known so far are of {ys[0].dtype}; "
                "labels of different types cannot be compared. Convert all to strings."
            )
    return np.concatenate(ys)
