"""Columns that describe a task: which they are, and that they are constant in each."""

from __future__ import annotations

from numbers import Integral

import numpy as np


def task_positions(task_features, names, n_columns: int) -> np.ndarray:
    """Positions of the columns that describe a task.

    Parameters
    ----------
    task_features : array-like of str or int, or None
        Names or positions; negative positions count from the end.
    names : ndarray of str or None
        Names of all columns.
    n_columns : int
        Number of columns.

    Returns
    -------
    ndarray of shape (n_task_features,)

    Raises
    ------
    ValueError
        If a column is not there or comes twice.
    """
    if task_features is None:
        return np.zeros(0, dtype=np.intp)
    place = {} if names is None else {name: i for i, name in enumerate(names)}
    positions = []
    for column in task_features:
        position = place.get(column) if isinstance(column, str) else column
        if not isinstance(position, Integral) or not -n_columns <= position < n_columns:
            known = f"{n_columns} columns without names"
            if names is not None:
                known = f"columns {list(names[:10])}"
            raise ValueError(
                f"task_features has {column!r}, which is not a column of X; X has "
                f"{known}."
            )
        positions.append(int(position) % n_columns)
    if len(set(positions)) < len(positions):
        raise ValueError(f"task_features has a column twice: {task_features!r}.")
    return np.array(positions, dtype=np.intp)


def check_constant(table, positions: np.ndarray, names) -> None:
    """Refuse rows of one task that describe it in two ways."""
    if not len(positions):
        return
    values = table.X[:, positions]
    starts = np.minimum(table.offsets[:-1], max(len(values) - 1, 0))
    refuse_changes(values[starts][table.codes], values, table, positions, names)


def refuse_changes(before, after, table, positions, names) -> None:
    """Raise where two descriptions that should be the same are not.

    Parameters
    ----------
    before, after : ndarray of shape (n, n_task_features)
        Of each row of a table, or of each task.
    table : object with ``ids``, and with ``codes`` where there is one for each row
        Whose they are.
    positions, names : ndarray, ndarray or None
        Of the columns.
    """
    changed = np.argwhere(before != after)
    if len(changed):
        row, column = changed[0]
        codes = getattr(table, "codes", None)
        task = table.ids[row if codes is None else codes[row]]
        which = "" if task is None else f" {task!r}"
        column = positions[column] if names is None else names[positions[column]]
        raise ValueError(
            f"Column {column!r} is among task_features but varies within the task"
            f"{which}. A task feature has one value in all rows of a task."
        )
