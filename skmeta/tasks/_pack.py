"""From rows in long format to padded task batches, in pieces of bounded size."""

from __future__ import annotations

import numpy as np
import torch

from ._batch import TaskBatch
from ._table import TaskTable, ranges

#: Padded cells of one piece at the most (64 MB in float64).
MAX_CELLS = 8_000_000


def pieces(counts, cells_per_row, max_cells=MAX_CELLS):
    """Tasks in groups of similar size, so that padding wastes little memory.

    Parameters
    ----------
    counts : int ndarray of shape (n_tasks,)
        Rows of each task.
    cells_per_row : int
        Numbers that a row holds.
    max_cells : int
        Bound on the padded cells of a group, unless one task exceeds it alone.

    Returns
    -------
    list of int ndarray
        Positions of the tasks of each group.
    """
    order = np.argsort(counts, kind="stable")
    groups, start = [], 0
    while start < len(order):
        stop = len(order)
        while (
            stop - start > 1
            and (stop - start) * max(int(counts[order[stop - 1]]), 1) * cells_per_row
            > max_cells
        ):
            stop = start + (stop - start + 1) // 2
        groups.append(order[start:stop])
        start = stop
    return groups


def to_batch(table: TaskTable, *, n_classes=None, class_mask=None) -> TaskBatch:
    """All tasks of a table as one padded batch, in the dtype of the table."""
    counts = table.counts
    width = int(counts.max(initial=0))
    full = bool((counts == width).all())
    shape = (table.n_tasks, width)
    tasks, slots = table.codes, ranges(np.zeros_like(counts), counts)

    def pad(values):
        if values is None:
            return None
        if full:
            return as_tensor(values.reshape(*shape, *values.shape[1:]))
        padded = np.zeros((*shape, *values.shape[1:]), dtype=values.dtype)
        padded[tasks, slots] = values
        return torch.from_numpy(padded)

    mask = None if full else torch.from_numpy(np.arange(width) < counts[:, None])
    return TaskBatch(
        pad(table.X), pad(table.y), mask, n_classes, class_mask, pad(table.weight)
    )


def as_tensor(values) -> torch.Tensor:
    """The same memory, unless it is read-only, as in a worker process, or reversed."""
    shared = values.flags.writeable and all(step >= 0 for step in values.strides)
    return torch.from_numpy(values if shared else values.copy())


def unpad(values, table: TaskTable):
    """Rows of a padded array ``(n_tasks, n_rows, ...)`` in the table's order."""
    counts = table.counts
    return values[table.codes, ranges(np.zeros_like(counts), counts)]
